"""Files that want to run code, or to fill the memory: nothing is executed or unpacked."""

import builtins
import io
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collapse_audit.checkpoints import find_heads, load_prototypes
from collapse_audit.errors import CheckpointError, UnsafePickleError
from tests.small_checkpoints import WEIGHT, K, both, head, rewrite_zip, save_torch


class Payload:
    """Pickles as a call of somebody's choice."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@both
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, r"posix\.system"),
        (builtins.eval, r"(?:\w+\.)?eval"),  # noqa: S307  (refused, that is the test)
        (builtins.exec, r"(?:\w+\.)?exec"),
        (builtins.getattr, r"(?:\w+\.)?getattr"),
        (subprocess.getoutput, r"\w+\.getoutput"),  # protocol 2 has Python 2's module names
        (torch.load, r"torch\.serialization\.load"),
        (pickle.loads, r"_?pickle\.loads"),  # noqa: S301
    ],
)
@pytest.mark.parametrize("nest", [lambda x: x, lambda x: {"teacher": head(), "opt": [{"a": (x,)}]}])
def test_a_pickle_that_wants_to_run_code_is_refused_by_name(
    is_zip: bool,
    function: Callable[..., Any],
    name: str,
    nest: Callable[[Any], Any],
    tmp_path: Path,
) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.pth"
    save_torch(path, nest(Payload(function, f"touch {marker}")), is_zip=is_zip)
    with pytest.raises(UnsafePickleError, match=f"names {name}, .*nothing was executed"):
        load_prototypes(path)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_newer_pickle_protocols_execute_nothing_either(protocol: int, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.pth"
    torch.save([Payload(os.system, f"touch {marker}")], path, pickle_protocol=protocol)
    with pytest.raises(UnsafePickleError, match="nothing was executed"):
        load_prototypes(path)
    assert not marker.exists()


def test_no_environment_variable_switches_the_safety_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker, path = tmp_path / "ran", tmp_path / "evil.pth"
    save_torch(path, Payload(os.system, f"touch {marker}"))
    with pytest.raises(UnsafePickleError, match=r"posix\.system"):
        load_prototypes(path)
    assert not marker.exists()


class BrokenDtype:
    """A numpy dtype whose state numpy itself refuses, or crashes on."""

    def __reduce__(self) -> tuple[Any, ...]:
        return np.dtype, ("f8", False, True), ("nonsense", "<", None)


@both
def test_numpy_objects_of_a_file_are_not_built(is_zip: bool, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"."):
        pickle.loads(pickle.dumps(BrokenDtype()))  # noqa: S301
    path = tmp_path / "dtype.pth"
    save_torch(path, {"teacher": head(), "epoch": BrokenDtype()}, is_zip=is_zip)
    assert load_prototypes(path).k == K


@both
def test_a_storage_that_lies_about_its_size_is_refused(is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "liar.pth"
    save_torch(path, {"prototypes": torch.ones(10_000, 7)}, is_zip=is_zip)
    true, claimed = b"J" + struct.pack("<i", 70_000), b"J" + struct.pack("<i", 2**31 - 1)
    rows, more_rows = b"M" + struct.pack("<H", 10_000), b"J" + struct.pack("<i", 300_000_000)

    def lie(_: str, content: bytes) -> bytes:
        return content.replace(true, claimed).replace(rows, more_rows)

    assert true in path.read_bytes()
    if is_zip:
        rewrite_zip(path, lie)
    else:
        path.write_bytes(lie("", path.read_bytes()))
    with pytest.raises(CheckpointError, match="damaged or truncated torch file"):
        load_prototypes(path)


def test_pickled_objects_in_numpy_files_are_never_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    evil = np.array([Payload(os.system, f"touch {marker}")], dtype=object)
    np.save(tmp_path / "evil.npy", evil, allow_pickle=True)
    np.savez(tmp_path / "evil.npz", evil=evil, prototypes=WEIGHT.numpy())
    with pytest.raises(CheckpointError, match="pickled Python objects"):
        load_prototypes(tmp_path / "evil.npy")
    assert load_prototypes(tmp_path / "evil.npz").k == K
    assert not marker.exists()


def test_a_compressed_checkpoint_is_refused_before_unpacking(tmp_path: Path) -> None:
    path = tmp_path / "packed.pth"
    save_torch(path, {"teacher": head()})
    rewrite_zip(path, lambda _, content: content, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"is compressed, which torch never does"):
        load_prototypes(path)


def test_a_huge_index_is_refused_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\x80\x02" + b"N0" * 30_000_000)
    with pytest.raises(CheckpointError, match=r"declares 60\.0 MB; it was not read"):
        load_prototypes(path)


def test_a_huge_legacy_pickle_is_refused_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    save_torch(path, {"teacher": head()}, is_zip=False)
    content = path.read_bytes()
    start = content.index(b"X\x07\x00\x00\x00teacher")
    path.write_bytes(content[:start] + b"X\xff\xff\xff\x00" + bytes(9 * 1024**2))
    with pytest.raises(CheckpointError, match=r"larger than 8\.4 MB; it was not read"):
        load_prototypes(path)


def test_a_large_legacy_file_with_small_pickles_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.pth"
    save_torch(path, {"x": torch.ones(3 * 1024, 1024), "teacher": head()}, is_zip=False)
    np.testing.assert_array_equal(load_prototypes(path).rows, WEIGHT.numpy())


def test_a_huge_safetensors_header_is_refused_before_parsing(tmp_path: Path) -> None:
    path = tmp_path / "bomb.safetensors"
    header = b"{" + b" " * 17 * 1024**2 + b"}"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError, match=r"declares a header of 17\.8 MB"):
        load_prototypes(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_doubled_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.pth"
    save_torch(path, {"teacher": head()})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("twice/data.pkl", b"\x80\x02N.")
    with pytest.raises(CheckpointError, match=r"'twice/data\.pkl' appears more than once"):
        load_prototypes(path)


def test_a_member_beyond_the_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.pth"
    save_torch(path, {"teacher": head()})
    content = path.read_bytes()
    entry = content.index(b"PK\x01\x02")  # central directory: packed and unpacked size at 20, 24
    path.write_bytes(
        content[: entry + 20] + struct.pack("<II", 2**30, 2**30) + content[entry + 28 :]
    )
    with pytest.raises(CheckpointError, match=r"(?:reaches beyond|declares 1,073\.7 MB)"):
        load_prototypes(path)


def test_a_compressed_numpy_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2**14, 2**14 + 1)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("w.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        for _ in range(2**14 + 1):
            member.write(bytes(4 * 2**14))
    with pytest.raises(CheckpointError, match=r"w unpacks to 1,073\.8 MB"):
        load_prototypes(path)


@both
def test_an_expanded_view_is_not_blown_up(is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "expanded.pth"
    save_torch(path, {"prototypes": torch.ones(1, 1).expand(2**20, 2**20)}, is_zip=is_zip)
    with pytest.raises(CheckpointError, match="over only 4 stored bytes"):
        load_prototypes(path)


def test_dictionaries_that_hold_one_another_do_not_explode(tmp_path: Path) -> None:
    path = tmp_path / "nested.pth"
    tree: dict[str, Any] = {"teacher": head()}
    for _ in range(60):
        tree = {"a": tree, "b": tree}
    tree["state_dict"] = {"teacher": head()}
    save_torch(path, tree)
    assert [h.name for h in find_heads(path)] == ["head"]


def test_keys_with_control_characters_are_shown_escaped(tmp_path: Path) -> None:
    path = tmp_path / "ansi.pth"
    save_torch(path, {"\x1b[31mred\nline": WEIGHT, "x" * 500: WEIGHT})
    with pytest.raises(CheckpointError, match=r"\\x1b\[31mred\\nline, x+…") as caught:
        load_prototypes(path)
    assert "\x1b" not in str(caught.value)
