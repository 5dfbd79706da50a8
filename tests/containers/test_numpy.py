"""Files of numpy.save and numpy.savez: exact values, lies, and objects that are never loaded."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collapse_audit.containers import zip_archive
from collapse_audit.containers.opening import read_checkpoint
from collapse_audit.errors import CheckpointError
from collapse_audit.sources import load_prototypes
from tests.small_checkpoints import WEIGHT, K, MemorySource, read_bytes, read_every_tensor


def written(save: Any, *arrays: Any, **named: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2"])
def test_a_matrix_is_a_head(order: Any, dtype: str, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_every_shape_and_type_are_read(save: Any) -> None:
    arrays = {
        "scalar": np.float64(3),
        "empty": np.ones((0, 3)),
        "stack": np.arange(24.0).reshape(2, 3, 4),
        "fortran": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        "flags": np.array([True, False]),
        "params/head/kernel": np.ones((2, 2), np.float16),
    }
    found = read_every_tensor(read_bytes(written(save, **arrays)))
    assert list(found) == list(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array, strict=True)


def test_of_an_archive_only_headers_and_the_array_are_read() -> None:
    data = written(np.savez, a=np.ones(10**6), prototypes=WEIGHT.numpy())
    source = MemorySource(data)
    read_checkpoint(source, "large").tensors["prototypes"].read()
    assert len(data) > 8e6
    assert source.bytes_read < 600_000


class Payload:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('executed')",)


def test_pickled_objects_are_never_loaded() -> None:
    evil = np.array([Payload()], dtype=object)
    with pytest.raises(CheckpointError, match="pickled Python objects, which are never executed"):
        read_bytes(written(np.save, evil))
    found = read_bytes(written(np.savez, evil=evil, prototypes=WEIGHT.numpy()))
    assert list(found.tensors) == ["prototypes"]


def npy(shape: str, data: bytes = bytes(64), descr: str = "'<f4'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    ("shape", "descr"),
    [
        ("(10**9, 10**9)", "'<f4'"),
        ("(1000000000, 1000000000)", "'<f4'"),
        ("(-1, 4)", "'<f4'"),
        ("(2.5,)", "'<f4'"),
        ("(True, 4)", "'<f4'"),
        ("(" + "1," * 70 + ")", "'<f4'"),
        ("(" + "(" * 200 + "1" + ")" * 200 + ",)", "'<f4'"),
        ("(4, 4)", "'<x9'"),
        ("(4, 4)", "__import__('os')"),
        ("(5, 4)", "'<f4'"),
    ],
)
def test_a_lying_header_is_refused(shape: str, descr: str) -> None:
    for data in (npy(shape, descr=descr), as_archive(npy(shape, descr=descr))):
        with pytest.raises(CheckpointError, match="damaged or truncated numpy file"):
            read_bytes(data)


def as_archive(member: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("w.npy", member)
    return buffer.getvalue()


def test_a_header_of_a_gigabyte_is_not_read() -> None:
    bomb = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**30) + b" " * 2**24
    for data in (bomb, as_archive(bomb), as_archive(bomb, zipfile.ZIP_DEFLATED)):
        source = MemorySource(data)
        with pytest.raises(CheckpointError, match="damaged or truncated numpy file"):
            read_checkpoint(source, "bomb")
        assert source.bytes_read < 500_000


def test_an_array_that_unpacks_to_more_than_any_head_has_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = as_archive(npy("(1000, 1000)", bytes(4_000_000)), zipfile.ZIP_DEFLATED)
    assert read_bytes(data).tensors["w"].read().sum() == 0
    monkeypatch.setattr(zip_archive, "UNPACKED_BYTES", 3_000_000)
    with pytest.raises(CheckpointError, match=r"'w\.npy' unpacks to 4\.0 MB.*without compression"):
        read_bytes(data)


def test_no_more_than_declared_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    member = npy("(1000, 1000)", bytes(4_000_000))
    data = bytearray(as_archive(member, zipfile.ZIP_DEFLATED))
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 100_000)  # its size, as the directory has it
    monkeypatch.setattr(zip_archive, "UNPACKED_BYTES", 200_000)
    with pytest.raises(CheckpointError, match="declares 4,000,000 bytes, the file has 9"):
        read_bytes(bytes(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_compression_that_numpy_does_not_use_is_refused(method: int) -> None:
    with pytest.raises(CheckpointError, match="in a way that neither torch nor numpy uses"):
        read_bytes(as_archive(npy("(4, 4)"), method))


def test_two_names_of_one_array_are_refused() -> None:
    assert K > 1
    buffer = io.BytesIO(written(np.savez, w=WEIGHT.numpy()))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("W.npy", npy("(4, 4)"))
    with pytest.raises(CheckpointError, match=r"'w\.npy' appears more than once"):
        read_bytes(buffer.getvalue())
