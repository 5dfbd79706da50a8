"""Safetensors files: exact values, and headers that lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from collapse_audit.containers.limits import INDEX_BYTES
from collapse_audit.containers.opening import read_checkpoint, read_path
from collapse_audit.errors import CheckpointError
from collapse_audit.sources import load_prototypes
from tests.small_checkpoints import SCALE, WEIGHT, D, K, MemorySource, head, read_bytes
from tests.small_checkpoints import safetensors_of as packed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_stored_type_gives_exactly_its_values(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    stored = WEIGHT.to(dtype)
    save_file(head(stored, SCALE.to(dtype)) | {"other": torch.arange(3)}, path)
    loaded = load_prototypes(path)
    np.testing.assert_array_equal(loaded.rows, stored.double().numpy())
    np.testing.assert_array_equal(loaded.norms, SCALE.to(dtype).double().numpy()[:, 0])
    assert loaded.dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize(
    "dtype",
    [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.uint16,
     torch.uint32, torch.uint64],
)  # fmt: skip
def test_whole_numbers_are_read_too(dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.tensor([[0, 1, 1], [1, 0, 1]], dtype=dtype)
    save_file({"x": values}, tmp_path / "x.safetensors")
    found = read_path(tmp_path / "x.safetensors", "x").tensors["x"]
    assert found.dtype == str(dtype).removeprefix("torch.")
    np.testing.assert_array_equal(found.read(), values.numpy(), strict=True)


def test_types_that_no_head_is_stored_in_are_left_out(tmp_path: Path) -> None:
    pairs = torch.ones(4, 4, dtype=torch.complex64)
    save_file({"pairs": pairs, "prototypes": WEIGHT}, tmp_path / "x.safetensors")
    assert list(read_path(tmp_path / "x.safetensors", "x").tensors) == ["prototypes"]


def test_a_single_matrix_is_a_head(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"codebook": WEIGHT}, path)
    assert load_prototypes(path).name == "codebook"


def test_text_beside_the_tensors_is_kept(tmp_path: Path) -> None:
    save_file({"x": WEIGHT}, tmp_path / "x.safetensors", {"format": "pt", "epoch": "3"})
    assert read_path(tmp_path / "x.safetensors", "x").metadata == {"format": "pt", "epoch": "3"}


def test_only_the_header_and_the_tensor_are_read(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    save_file({"a": torch.ones(1000, 1000), "prototypes": WEIGHT, "z": torch.ones(1000)}, path)
    source = MemorySource(path.read_bytes())
    read_checkpoint(source, "large").tensors["prototypes"].read()
    assert source.bytes_read < 2000


def test_views_of_one_place_are_one_storage() -> None:
    place = {"dtype": "F32", "shape": [0, 2], "data_offsets": [0, 0]}
    tensors = read_bytes(packed({"a": place, "b": place})).tensors
    assert tensors["a"].storage == tensors["b"].storage
    assert tensors["a"].read().shape == (0, 2)


GOOD = {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({**GOOD, "shape": [K, D], "data_offsets": [0, 10**13]}, "10,000,000.0 MB of data"),
        ({**GOOD, "shape": [10**9, 10**9]}, r"\[1000000000, 1000000000\] of F32 but 64 bytes"),
        ({**GOOD, "shape": [-4, -4]}, "natural numbers"),
        ({**GOOD, "data_offsets": [64, 0]}, "ends before it begins"),
        ({**GOOD, "data_offsets": [-64, 0]}, "natural numbers"),
        ({**GOOD, "data_offsets": [0, 64, 128]}, "cannot be read"),
        ({**GOOD, "shape": [4, 4.0]}, "natural numbers"),
        ({**GOOD, "shape": [4, True]}, "natural numbers"),
        ({**GOOD, "shape": [2**63, 0], "data_offsets": [0, 0]}, "natural numbers"),
        ({**GOOD, "shape": [1] * 70_000}, "over 64 dimensions"),
        ({**GOOD, "shape": "44"}, "natural numbers"),
        ({**GOOD, "shape": None}, "cannot be read"),
        ({"dtype": "F32", "shape": [4, 4]}, "data_offsets"),
        ({**GOOD, "dtype": ["F32"]}, "natural numbers"),
        ("nothing", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_lying_header_is_refused(entry: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"damaged or truncated safetensors.*{message}"):
        read_bytes(packed({"prototypes": entry}, bytes(64)))


def test_numbers_that_are_none_are_refused() -> None:
    header = json.dumps({"x": GOOD}).encode()
    for number in (b"1e400", b"NaN", b"Infinity", b"9" * 5000):
        with pytest.raises(CheckpointError, match="damaged or truncated safetensors"):
            read_bytes(packed(header.replace(b"64]", number + b"]"), bytes(64)))


def test_tensors_that_overlap_are_refused() -> None:
    half = {"dtype": "F32", "shape": [2, 4], "data_offsets": [32, 64]}
    with pytest.raises(CheckpointError, match="'b' overlaps another tensor"):
        read_bytes(packed({"a": GOOD, "b": half}, bytes(64)))
    other = {**GOOD, "data_offsets": [64, 128]}
    assert list(read_bytes(packed({"b": other, "a": GOOD}, bytes(128))).tensors) == ["b", "a"]


def test_a_key_that_stands_there_twice_is_refused() -> None:
    entry = json.dumps(GOOD).encode()
    with pytest.raises(CheckpointError, match="a key stands there twice"):
        read_bytes(packed(b'{"x": ' + entry + b', "x": ' + entry + b"}", bytes(64)))


@pytest.mark.parametrize("key", ["", "x" * 5000, "\x1b[31m", "\u202e", "\ud800"])
def test_any_key_can_be_listed_and_read(key: str) -> None:
    (tensor,) = read_bytes(packed({key: GOOD}, bytes(64))).tensors.values()
    assert 0 < len(tensor.key) <= 1000
    assert tensor.key.isprintable()
    assert tensor.read().shape == (4, 4)


@pytest.mark.parametrize(
    "header", [b"{[[[]", b"{" * 100_000, b"[]", b"{}{}", b'{"__metadata__": 3}']
)
def test_a_header_that_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be read|format known"):
        read_bytes(packed(header))


def test_a_huge_header_is_refused_before_parsing() -> None:
    source = MemorySource(packed(b"{" + b" " * INDEX_BYTES + b"}"))
    with pytest.raises(CheckpointError, match=r"declares a header of 16\.8 MB"):
        read_checkpoint(source, "bomb")
    assert source.bytes_read < 1000
