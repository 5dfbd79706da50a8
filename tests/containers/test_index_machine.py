"""Pickles that want to run code, to fill the memory or to take for ever: they build data only."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collapse_audit.containers import limits
from collapse_audit.containers.index_machine import read_index
from collapse_audit.containers.pickled import Name, Opaque, storage_of
from collapse_audit.errors import CheckpointError, UnsafePickleError
from collapse_audit.sources import load_prototypes
from tests.small_checkpoints import (
    WEIGHT,
    K,
    both,
    head,
    read_bytes,
    read_every_tensor,
    save_torch,
    saved,
    zip_of,
)


class Payload:
    """Pickles as a call of somebody's choice."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


NESTS: dict[str, Callable[[Any], Any]] = {
    "alone": lambda x: x,
    "beside a head": lambda x: {"teacher": head(), "opt": [{"a": (x,)}]},
}


@both
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, r"posix\.system"),
        (builtins.eval, r"(?:\w+\.)?eval"),  # noqa: S307  (refused, that is the test)
        (builtins.exec, r"(?:\w+\.)?exec"),
        (builtins.__import__, r"(?:\w+\.)?__import__"),
        (subprocess.getoutput, r"\w+\.getoutput"),  # protocol 2 has Python 2's module names
        (torch.load, r"torch\.serialization\.load"),
        (pickle.loads, r"_?pickle\.loads"),  # noqa: S301
    ],
)
@pytest.mark.parametrize("nest", NESTS)
def test_a_pickle_that_wants_to_run_code_is_refused_by_name(
    is_zip: bool, function: Callable[..., Any], name: str, nest: str, tmp_path: Path
) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.pth"
    save_torch(path, NESTS[nest](Payload(function, f"touch {marker}")), is_zip=is_zip)
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


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_protocol_gives_the_same_data(protocol: int) -> None:
    tree = {
        "a": [1, 2.5, None, True, "text", "ü" * 300, b"bytes", 2**40, -(2**70)],
        "b": {"c": (), "d": (1,), "e": (1, 2, 3, 4), "f": {}, "g": []},
    }
    found = read_index(pickle.dumps(tree, protocol), "x").root
    if protocol < 3:
        found["a"][6] = b"bytes"  # a call of _codecs.encode, which stays one
    assert found == tree


def test_no_environment_variable_switches_the_safety_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker, path = tmp_path / "ran", tmp_path / "evil.pth"
    save_torch(path, Payload(os.system, f"touch {marker}"))
    with pytest.raises(UnsafePickleError, match=r"posix\.system"):
        load_prototypes(path)
    assert not marker.exists()


@both
@pytest.mark.parametrize("function", [print, os.path.join, getattr, np.full])
def test_an_unknown_name_is_not_called_either_and_does_not_cost_the_audit(
    is_zip: bool, function: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, marker = tmp_path / "odd.pth", tmp_path / "ran"
    save_torch(path, {"teacher": head(), "x": Payload(function, str(marker), "y")}, is_zip=is_zip)
    loaded = load_prototypes(path)
    assert loaded.k == K
    assert "objects of unknown types beside the weights were not read: " in loaded.notes[-1]
    assert function.__name__ in loaded.notes[-1]
    assert (capsys.readouterr().out, marker.exists()) == ("", False)


def test_the_note_names_the_first_three_and_counts_the_rest(tmp_path: Path) -> None:
    made = {f"x{i}": Payload(function) for i, function in enumerate((print, len, max, min, sum))}
    save_torch(tmp_path / "odd.pth", {"teacher": head(), **made})
    (note,) = load_prototypes(tmp_path / "odd.pth").notes
    assert note.endswith("print, __builtin__.len, __builtin__.max and 2 more")


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
    loaded = load_prototypes(path)
    assert (loaded.k, loaded.notes) == (K, ())  # numpy is part of every checkpoint


# --- programs written by hand --------------------------------------------------------------------


def with_index(program: bytes) -> bytes:
    return zip_of({"archive/data.pkl": program, "archive/data/0": bytes(64)})


def tensor(offset: bytes, shape: bytes, strides: bytes, storage: bytes = b"FloatStorage") -> bytes:
    """A program of one tensor over the 64 bytes of the archive."""
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n%s\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x10tQ%s%s%s\x89)tR"
    ) % (storage, offset, shape, strides)


def below(key: bytes, value: bytes) -> bytes:
    return b"\x80\x02}X" + struct.pack("<I", len(key)) + key + value + b"s."


V, STEPS = b"K\x04K\x04\x86", b"K\x04K\x01\x86"  # shape 4 x 4: the whole storage
HUGE = b"\x8a\x08" + (2**50).to_bytes(8, "little")
KEY = b"prototypes.weight"


@pytest.mark.parametrize(
    ("program", "error", "message"),
    [
        (b"\x80\x02cposix\nsystem\nU\x04trueq\x00\x85R.", UnsafePickleError, r"posix\.system"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93)R.", UnsafePickleError, r"posix\.system"),
        (b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.", UnsafePickleError, r"os\.system"),
        (b"(iposix\nsystem\n.", UnsafePickleError, r"posix\.system"),
        (b"\x80\x02K\x01)R.", UnsafePickleError, "calls something that is no name"),
        (b"\x80\x02cfoo\nBar\nK\x01R.", CheckpointError, "arguments that are no tuple"),
        (b"\x80\x02\x82\x01.", UnsafePickleError, "operation EXT1"),
        (b"\x80\x05\x97.", UnsafePickleError, "operation NEXT_BUFFER"),
        (b"P0\n.", UnsafePickleError, "operation PERSID"),
        (b"\x80\x02K\x01", CheckpointError, "damaged or truncated"),
        (b"\x80\x02" + b"0" * 5 + b".", CheckpointError, "damaged or truncated"),
        (b"\x80\x02(.", CheckpointError, "a mark where a value should be"),
        (b"\x80\x02t.", CheckpointError, "no mark"),
        (b"\x80\x02}K\x01e.", CheckpointError, "damaged or truncated"),
        (b"\x80\x02K\x01K\x01K\x01s.", CheckpointError, "holds none"),
        (b"\x80\x02}(K\x01K\x02K\x03u.", CheckpointError, "damaged or truncated"),
        (b"\x80\x04K\x01K\x02\x93.", CheckpointError, "a name that is no text"),
        (b"\x80\x02" + b"K\x01" * 1_600_000 + b".", CheckpointError, "over 1,500,000 operations"),
        (b"\x80\x02j\xff\xff\xff\xff.", CheckpointError, "damaged or truncated"),
        (b"\x80\x02h\x07.", CheckpointError, "KeyError"),
        (b"\x80\x04\x8c\x02ab\x94\x8c\x01c" + b"\x8c\xff" + b"x" * 255 + b"\x93.", None, ""),
        (b"\x80\x02K\x01r\xff\xff\xff\xff.", None, ""),
        (b"\x80\x02}}b.", None, ""),
        (b"\x80\x02]}b.", None, ""),
        (b"\x80\x02)" + b"\x85" * 100_000 + b".", None, ""),
        (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", None, ""),
        (below(KEY, tensor(b"K\x00", V, STEPS)), None, ""),
        (below(b"", tensor(b"K\x00", V, STEPS)), None, ""),
        (below(KEY, tensor(b"K\x01", V, STEPS)), CheckpointError, "only 64"),
        (below(KEY, tensor(HUGE, V, STEPS)), CheckpointError, "only 64"),
        (below(KEY, tensor(b"K\x00", HUGE + HUGE + b"\x86", STEPS)), CheckpointError, "only 64"),
        (below(KEY, tensor(b"K\x00", HUGE + HUGE + b"\x86", b"K\x00K\x00\x86")),
         CheckpointError, "over only 4 stored bytes"),
        (below(KEY, tensor(b"K\x00", V, HUGE + HUGE + b"\x86")), CheckpointError, "only 64"),
        (below(KEY, tensor(b"K\x00", b"K\x01K\x04\x86", HUGE + b"K\x01\x86")), None, ""),
        (below(KEY, tensor(b"J\xff\xff\xff\xff", V, STEPS)), CheckpointError, "natural"),
        (below(KEY, tensor(b"K\x00", b"\x88K\x04\x86", STEPS)), CheckpointError, "natural"),
        (below(KEY, tensor(b"K\x00", b"(" + b"K\x01" * 65 + b"t", b"(" + b"K\x01" * 65 + b"t")),
         CheckpointError, "too many dimensions"),
        (below(KEY, tensor(b"K\x00", V, b"K\x04\x85")), CheckpointError, "not a tensor"),
        (below(KEY, tensor(b"K\x00", b"N", STEPS)), CheckpointError, "damaged or truncated"),
        (b"\x80\x02}(X\x01\x00\x00\x00a" + tensor(b"K\x00", V, STEPS) + b"X\x01\x00\x00\x00b"
         + tensor(b"K\x00", V, STEPS, b"IntStorage") + b"u.",
         CheckpointError, "a storage that is described twice"),
    ],
)  # fmt: skip
def test_a_program_runs_nothing_and_is_read_or_refused_in_words(
    program: bytes, error: type[Exception] | None, message: str
) -> None:
    if error is None:
        read_every_tensor(read_bytes(with_index(program)))
        return
    with pytest.raises(error, match=message) as caught:
        read_every_tensor(read_bytes(with_index(program)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def typed(depth: int) -> bytes:
    """A tensor that a call makes which a call makes; each of function, type, arguments, state."""
    function = b"ctorch._utils\n_rebuild_tensor_v2\n"
    wrapper, kind = b"ctorch._tensor\n_rebuild_from_type_v2\n", b"ctorch\nTensor\n"
    call = function + kind + tensor(b"K\x00", V, STEPS).removeprefix(function)[:-1] + b"N"
    for _ in range(depth - 1):
        call = wrapper + kind + b"(" + call + b"tN"
    return wrapper + b"(" + call + b"tR"


def test_calls_that_make_calls_are_followed_a_little_way() -> None:
    for depth in (1, 2, 5):
        found = read_bytes(with_index(below(KEY, typed(depth)))).tensors["prototypes.weight"]
        assert found.read().shape == (4, 4)
    with pytest.raises(UnsafePickleError, match="makes calls that make calls"):
        read_bytes(with_index(below(KEY, typed(3000))))


def test_a_program_of_many_megabytes_is_not_even_begun() -> None:
    with pytest.raises(CheckpointError, match=r"its index declares 16\.8 MB; it was not read"):
        read_index(b"\x80\x02" + bytes(limits.INDEX_BYTES), "x")


def test_a_program_is_left_where_it_ends() -> None:
    stream = io.BytesIO(pickle.dumps([1]) + pickle.dumps([2]) + b"rest")
    assert [read_index(stream, "x").root for _ in range(2)] == [[1], [2]]
    assert stream.read() == b"rest"


# --- the parts of an index -----------------------------------------------------------------------


def test_a_view_of_a_larger_storage_is_one_of_files_before_torch_0_4() -> None:
    kind = Name("torch", "FloatStorage")
    found = storage_of(("storage", kind, "0", "cpu", 10, ("1", 4, 6)))
    assert (found.dtype, found.offset, found.numel, found.root_numel) == ("float32", 4, 6, 10)


def test_an_object_is_shown_as_its_type_and_knows_its_attributes() -> None:
    shown = Opaque("lab.Config", state=({"a": 1, "b": 2}, {"b": 3}))
    assert str(shown) == "lab.Config"
    assert dict(shown.attributes) == {"a": 1, "b": 3}  # slots come last
    assert Opaque("x", state=[1]).attributes == {}


@both
def test_a_file_with_every_kind_of_plain_value_is_read(is_zip: bool) -> None:
    tree = {"teacher": head(), "x": [{1, 2}, frozenset({3}), (b"a",), 1 + 2j, 3**80, {1.5: None}]}
    (tree["x"]).append(tree["x"])
    found = read_bytes(saved(tree, is_zip=is_zip))
    np.testing.assert_array_equal(
        found.tensors["teacher/head.last_layer.weight_v"].read(), WEIGHT.numpy()
    )
    assert found.unread == ()
