"""Files that are cut, changed, or something else than their name says."""

import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from collapse_audit.checkpoints import find_heads, load_prototypes
from collapse_audit.errors import CheckpointError, CollapseAuditError
from tests.small_checkpoints import GOOD_FILES, WEIGHT, D, K

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


@pytest.mark.parametrize("name", [name for name in FILES if GOOD_FILES[name][:2] == b"PK"])
def test_a_zip_version_that_there_is_not_is_damage(name: str, tmp_path: Path) -> None:
    content = bytearray(GOOD_FILES[name])
    content[content.index(b"PK\x01\x02") + 6] = 99  # version 9.9 needed, where 6.3 is the last
    path = tmp_path / "later"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged zip .*zip file version 9\.9"):
        load_prototypes(path)


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
