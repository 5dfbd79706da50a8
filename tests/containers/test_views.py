"""Tensors that are views: strides, offsets, and values that stand for many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit.containers import views
from collapse_audit.containers.pickled import StorageRef, TensorRef
from collapse_audit.containers.views import read_view
from collapse_audit.errors import CheckpointError
from collapse_audit.sources import load_prototypes
from tests.small_checkpoints import D, K, both, read_bytes, save_torch, saved


@both
def test_strides_and_offsets_of_a_view_are_followed(is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    pool = torch.randn(2 * D, 3 * K, generator=torch.Generator().manual_seed(3))
    view = pool[1::2, K : 2 * K].T
    assert not view.is_contiguous()
    save_torch(path, {"prototypes": view}, is_zip=is_zip)
    np.testing.assert_array_equal(load_prototypes(path).rows, view.numpy())


slices = st.slices(6).filter(lambda s: s.step is None or s.step > 0)


@given(
    is_zip=st.booleans(),
    cuts=st.tuples(slices, slices, slices),
    order=st.permutations(range(3)),
    expand=st.integers(1, 3),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int16]),
)
def test_any_view_has_the_values_that_torch_gives_it(
    is_zip: bool, cuts: Any, order: list[int], expand: int, dtype: torch.dtype
) -> None:
    pool = torch.arange(6 * 6 * 6).reshape(6, 6, 6).to(dtype)
    view = pool[cuts].permute(*order).unsqueeze(0).expand(expand, -1, -1, -1)
    found = read_bytes(saved({"prototypes": view}, is_zip=is_zip)).tensors["prototypes"]
    assert found.shape == tuple(view.shape)
    if view.numel():
        values = found.read()
        assert values.flags.c_contiguous
        np.testing.assert_array_equal(values, view.numpy(), strict=True)


@both
def test_a_tensor_expanded_from_few_values_is_read_if_it_is_small(
    is_zip: bool, tmp_path: Path
) -> None:
    path = tmp_path / "ones.pth"
    tree = {"teacher": {"head.last_layer.weight_g": torch.ones(1, 1).expand(K, 1)}}
    tree["teacher"]["head.last_layer.weight_v"] = torch.arange(1.0, D + 1).expand(K, D)
    save_torch(path, tree, is_zip=is_zip)
    loaded = load_prototypes(path)
    np.testing.assert_array_equal(loaded.rows, np.tile(np.arange(1.0, D + 1), (K, 1)))
    np.testing.assert_array_equal(loaded.norms, np.ones(K))


@both
def test_an_expanded_view_is_not_blown_up(is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "expanded.pth"
    save_torch(path, {"prototypes": torch.ones(1, 1).expand(2**20, 2**20)}, is_zip=is_zip)
    with pytest.raises(CheckpointError, match=r"over only 4 stored bytes.*save the tensor itself"):
        load_prototypes(path)


def test_the_bound_is_on_what_a_tensor_expands_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "EXPANDED_BYTES", 4 * 100)
    for rows, allowed in ((100, True), (101, False)):
        tensor = read_bytes(saved({"prototypes": torch.ones(1).expand(rows)})).tensors["prototypes"]
        if allowed:
            assert tensor.read().sum() == rows
            continue
        with pytest.raises(CheckpointError, match="over only 4 stored bytes"):
            tensor.read()


def reference(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, numel: int = 16
) -> TensorRef:
    storage = StorageRef("0", "float32", numel, 0, numel)
    return TensorRef(storage, "float32", offset, shape, strides)


@pytest.mark.parametrize(
    "tensor",
    [
        reference((4, 4), (4, 1), offset=1),
        reference((4, 4), (4, 1), offset=2**50),
        reference((5, 4), (4, 1)),
        reference((4, 4), (2**50, 1)),
        reference((4, 4), (2**62, 2**62)),
        reference((2**50, 2**50), (4, 1)),
        reference((2**62, 2**62, 2**62), (1, 1, 1)),
        reference((4, 4), (4, 1), numel=17),  # more than the file holds
        reference((5, 4), (4, 1), numel=20),
        reference((4, 4), (4, 1), numel=2),  # more than its storage says to hold
    ],
)
def test_a_tensor_outside_its_storage_is_refused_without_reading(tensor: TensorRef) -> None:
    def read(*_: int) -> bytes:
        pytest.fail("read")

    with pytest.raises(CheckpointError, match="its storage has only 64 bytes"):
        read_view(tensor, 64, read, name="x")


def test_a_tensor_without_values_needs_no_bytes() -> None:
    tensor = reference((0, 2**62), (2**62, 2**62), offset=2**50)
    assert read_view(tensor, 64, lambda *_: b"", name="x").size == 0
