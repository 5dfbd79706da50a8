"""The self-test of a device: what fails there is a fault of the device, not of an argument."""

from __future__ import annotations

import pytest
import torch

from collapse_audit.errors import DeviceError
from collapse_audit.similarity.products.cuda import DevicePanel, self_test

# Not the remembered one: each test has a device of its own.
fresh_test = self_test.__wrapped__


def test_a_processor_passes():
    fresh_test("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_device_passes():
    fresh_test("cuda")


@pytest.mark.parametrize("wrong", [lambda tile: tile * 1.02, lambda tile: tile * float("nan")])
def test_products_that_break_their_bound_are_refused(monkeypatch, wrong):
    tile = DevicePanel.tile
    monkeypatch.setattr(DevicePanel, "tile", lambda *operands: wrong(tile(*operands)))
    with pytest.raises(DeviceError, match="products on cpu break their error bound") as caught:
        fresh_test("cpu")
    assert caught.value.hint == "Use `device=cpu`, and report the device."


def test_a_device_that_fails_says_so_in_one_line(monkeypatch):
    def broken(*_):
        raise torch.OutOfMemoryError("CUDA error: out of memory\nFor debugging consider ...")

    monkeypatch.setattr(DevicePanel, "gather", broken)
    with pytest.raises(DeviceError) as caught:
        fresh_test("cpu")
    assert str(caught.value) == (
        "device 'cpu' is there but fails: CUDA error: out of memory. "
        "Use `device=cpu`; the result is the same."
    )
