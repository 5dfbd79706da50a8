"""Containers, stored types, and files that are damaged or hostile."""

import argparse
import builtins
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from collapse_audit.checkpoints import describe, find_heads, load_heads, load_prototypes
from collapse_audit.errors import (
    CheckpointError,
    CollapseAuditError,
    PrototypeError,
    SourceError,
    UnsafePickleError,
)

K, D = 12, 8
WEIGHT = torch.randn(K, D, generator=torch.Generator().manual_seed(0))
SCALE = torch.linspace(0.5, 2, K)[:, None]


def save_torch(path: Path, tree: Any, *, is_zip: bool = True) -> None:
    torch.save(tree, path, _use_new_zipfile_serialization=is_zip)


def head(weight: torch.Tensor = WEIGHT, scale: torch.Tensor = SCALE) -> dict[str, Any]:
    return {"head.last_layer.weight_g": scale, "head.last_layer.weight_v": weight}


def rewrite_zip(path: Path, change: Callable[[str, bytes], bytes], **options: Any) -> None:
    """The same archive with other contents, as a hostile tool would write it."""
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, change(name, content))


both = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_stored_type_gives_exactly_its_values(
    is_zip: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    path = tmp_path / "head.pth"
    stored = WEIGHT.to(dtype)
    save_torch(path, {"teacher": head(stored, SCALE.to(dtype))}, is_zip=is_zip)
    loaded = load_prototypes(path)
    np.testing.assert_array_equal(loaded.rows, stored.double().numpy())
    assert loaded.dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_safetensors_give_exactly_their_values(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    stored = WEIGHT.to(dtype)
    save_file(head(stored, SCALE.to(dtype)) | {"other": torch.arange(3)}, path)
    loaded = load_prototypes(path)
    np.testing.assert_array_equal(loaded.rows, stored.double().numpy())
    np.testing.assert_array_equal(loaded.norms, SCALE.to(dtype).double().numpy()[:, 0])
    assert loaded.dtype == str(dtype).removeprefix("torch.")


@both
def test_strides_and_offsets_of_a_view_are_followed(is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    pool = torch.randn(2 * D, 3 * K, generator=torch.Generator().manual_seed(3))
    view = pool[1::2, K : 2 * K].T
    assert not view.is_contiguous()
    save_torch(path, {"prototypes": view}, is_zip=is_zip)
    np.testing.assert_array_equal(load_prototypes(path).rows, view.numpy())


@both
def test_files_of_numpy_1_are_read(is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    numbers = [np.float64(0.1), np.float32(2), np.int64(3), np.bool_(True), np.uint8(4)]
    args = argparse.Namespace(lr=np.float64(0.5), crops=[1, 2])
    save_torch(path, {"teacher": head(), "schedule": numbers, "args": args}, is_zip=is_zip)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    if is_zip:
        rewrite_zip(path, lambda _, content: content.replace(new, old))
    else:
        path.write_bytes(path.read_bytes().replace(new, old))
    np.testing.assert_array_equal(load_prototypes(path).rows, WEIGHT.numpy())


def test_the_allow_list_is_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    save_torch(path, {"teacher": head(), "args": argparse.Namespace()})
    find_heads(path)  # torch itself lists classes of modules that a first load imports
    before = set(torch.serialization.get_safe_globals())
    find_heads(path)
    assert set(torch.serialization.get_safe_globals()) == before
    assert argparse.Namespace not in before


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2"])
def test_a_numpy_matrix_is_a_head(order: Any, dtype: str, tmp_path: Path) -> None:
    matrix = np.asarray(WEIGHT.numpy(), dtype=dtype, order=order)
    np.save(tmp_path / "w.npy", matrix)
    np.savez(tmp_path / "w.npz", my_head=matrix, labels=np.arange(5), names=np.array(["a"]))
    np.savez_compressed(tmp_path / "packed.npz", my_head=matrix)
    for name, expected in (
        ("w.npy", "prototypes"),
        ("w.npz", "my_head"),
        ("packed.npz", "my_head"),
    ):
        loaded = load_prototypes(tmp_path / name)
        np.testing.assert_array_equal(loaded.rows, matrix.astype("f8"))
        assert (loaded.name, loaded.branch) == (expected, None)


def test_a_single_safetensors_matrix_is_a_head(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"codebook": WEIGHT}, path)
    assert load_prototypes(path).name == "codebook"


@pytest.mark.parametrize("load", [load_prototypes, load_heads])
def test_several_numpy_matrices_need_a_choice(load: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, features=np.ones((3, 4)), weight=WEIGHT.numpy())
    with pytest.raises(CheckpointError, match=r"2 matrices.*Choose a head: features, weight"):
        load(path)
    np.testing.assert_array_equal(load_prototypes(path, head="weight").rows, WEIGHT.numpy())


def test_a_matrix_called_prototypes_needs_no_choice(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(path, features=np.ones((3, 4)), prototypes=WEIGHT.numpy())
    assert load_prototypes(path).name == "prototypes"


# --- damaged -------------------------------------------------------------------------------------


def _good_files() -> dict[str, bytes]:
    """One small file per container."""
    files = {}
    tree = {"teacher": head(), "epoch": 3, "args": argparse.Namespace(lr=np.float64(0.1))}
    for name, is_zip in (("zip", True), ("legacy", False)):
        buffer = io.BytesIO()
        torch.save(tree, buffer, _use_new_zipfile_serialization=is_zip)
        files[name] = buffer.getvalue()
    header = json.dumps(
        {
            "last_layer.weight_v": {
                "dtype": "F32",
                "shape": [K, D],
                "data_offsets": [0, 4 * K * D],
            },
            "last_layer.weight_g": {
                "dtype": "F32",
                "shape": [K, 1],
                "data_offsets": [4 * K * D, 4 * K * D + 4 * K],
            },
        }
    ).encode()
    data = WEIGHT.numpy().tobytes() + SCALE.numpy().tobytes()
    files["safetensors"] = struct.pack("<Q", len(header)) + header + data
    for name, save in (("npy", np.save), ("npz", np.savez), ("packed", np.savez_compressed)):
        buffer = io.BytesIO()
        save(buffer, WEIGHT.numpy())
        files[name] = buffer.getvalue()
    return files


GOOD_FILES = _good_files()
FILES = sorted(GOOD_FILES)
fuzz = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)


@pytest.mark.parametrize("name", FILES)
def test_the_undamaged_file_is_good(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(GOOD_FILES[name])
    np.testing.assert_array_equal(load_prototypes(path).rows, WEIGHT.numpy())


@pytest.mark.parametrize("name", FILES)
@given(fraction=st.floats(0, 1, exclude_max=True))
@example(fraction=0.0)
@fuzz
def test_a_file_cut_anywhere_is_a_checkpoint_error(
    name: str, fraction: float, tmp_path: Path
) -> None:
    content = GOOD_FILES[name]
    path = tmp_path / "cut"
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(CheckpointError, match="cut: ") as caught:
        load_prototypes(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@fuzz
def test_a_file_changed_anywhere_never_fails_in_another_way(
    name: str, data: st.DataObject, tmp_path: Path
) -> None:
    content = bytearray(GOOD_FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "changed"
    path.write_bytes(content)
    try:
        load_prototypes(path)
    except CollapseAuditError as error:
        assert "\n" not in str(error)  # noqa: PT017  (a change may also be harmless)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n <HTML>", "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"\x1f\x8b\x08\x00data", "gzip"),
        (b"\x80\x02\x8a\x0a\x6c", "truncated after 5 bytes"),
        (pickle.dumps({"a": 1}), "plain Python pickle"),
        (b"hello, world", "not a checkpoint format"),
        (b"\xff" * 8 + b"{}", "declares a header of 18,446,744,073,709,551,615 bytes"),
        (struct.pack("<Q", 2) + b"{}", "no prototypes"),
        (struct.pack("<Q", 5) + b"{[[[]", "header cannot be read"),
    ],
)
def test_other_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "download.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_prototypes(path)


def test_a_real_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    (tmp_path / "x").write_text("x")
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "x", arcname="x")
    with pytest.raises(CheckpointError, match="tar archive"):
        find_heads(path)


def test_an_ordinary_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.jpg", b"x")
    with pytest.raises(CheckpointError, match=r"neither torch's .* nor numpy's"):
        find_heads(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [K, D], "data_offsets": [0, 10**13]},
        {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 64]},
        {"dtype": "F32", "shape": [-4, -4], "data_offsets": [0, 64]},
        {"dtype": "F32", "shape": [4, 4], "data_offsets": [64, 0]},
        {"dtype": "F32", "shape": [4, 4.0], "data_offsets": [0, 64]},
        {"dtype": "F32", "shape": [4, True], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4, 4]},
        {"dtype": ["F32"], "shape": [4, 4], "data_offsets": [0, 64]},
        "nothing",
    ],
)
def test_a_lying_safetensors_header_is_refused(entry: Any, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    header = json.dumps({"prototypes": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    with pytest.raises(CheckpointError, match="damaged or truncated safetensors"):
        load_prototypes(path)


@pytest.mark.parametrize(
    "shape", ["(10**9, 10**9)", "(1000000000, 1000000000)", "(-1, 4)", "(2.5,)"]
)
def test_a_lying_numpy_header_is_refused(shape: str, tmp_path: Path) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    path = tmp_path / "head.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))
    with pytest.raises(CheckpointError, match="damaged or truncated numpy file"):
        load_prototypes(path)


# --- hostile -------------------------------------------------------------------------------------


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


# --- sizes, permissions, imports -----------------------------------------------------------------


def test_a_file_that_may_not_be_opened_is_a_source_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret.pth"
    save_torch(path, {"teacher": head()})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may open everything, so chmod is no test
    with pytest.raises(SourceError, match=r"cannot be opened \(Permission denied\)\. Check"):
        find_heads(path)


def test_bad_prototypes_are_reported_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "zero.npy"
    np.save(path, np.zeros((3, 4), dtype="f4"))
    with pytest.raises(PrototypeError, match=r"zero\.npy: prototypes: 3 of 3 prototypes are all"):
        load_prototypes(path)


def test_half_a_weight_norm_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    save_torch(path, {"teacher": {"head.last_layer.weight_v": WEIGHT}})
    with pytest.raises(CheckpointError, match="without its scale"):
        find_heads(path)


@pytest.mark.parametrize("name", ["safetensors", "npy", "npz"])
def test_numpy_containers_do_not_import_torch(name: str, tmp_path: Path) -> None:
    path = tmp_path / "head"
    path.write_bytes(GOOD_FILES[name])
    code = (
        "import sys; from collapse_audit.checkpoints import describe, load_prototypes\n"
        f"describe({str(path)!r}); assert load_prototypes({str(path)!r}).k == {K}\n"
        "heavy = {'torch', 'sklearn', 'pandas', 'matplotlib', 'timm', 'scipy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_large_file_is_read_without_its_backbone(tmp_path: Path) -> None:
    path = tmp_path / "large.pth"
    backbone = {f"backbone.{i}.weight": torch.ones(2500, 10_000) for i in range(3)}
    save_torch(path, {"teacher": backbone | head()})
    assert path.stat().st_size > 300e6
    small = tmp_path / "small.pth"
    save_torch(small, {"teacher": head()})
    code = (
        "import resource; from collapse_audit.checkpoints import describe, load_prototypes\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"load_prototypes({str(small)!r}); before = peak()\n"
        f"assert describe({str(path)!r}).size > 3e8\n"
        f"assert load_prototypes({str(path)!r}).k == {K}\n"
        "print((peak() - before) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 100


def test_describe_reads_no_values(tmp_path: Path) -> None:
    path = tmp_path / "nan.pth"
    save_torch(path, {"teacher": head(torch.full((K, D), float("nan")))})
    assert describe(path).heads[0].k == K
