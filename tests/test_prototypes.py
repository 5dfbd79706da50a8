"""Prototypes: what is taken from a weight matrix, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from collapse_audit import PrototypeError, Prototypes


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numpy_weights_keep_their_values_and_their_type_is_noted(dtype):
    weight = np.random.default_rng(0).standard_normal((5, 3)).astype(dtype)
    prototypes = Prototypes.from_weight(weight)
    assert prototypes.dtype == dtype
    assert prototypes.rows.dtype == (np.float64 if dtype == "float64" else np.float32)
    np.testing.assert_array_equal(prototypes.rows, weight)
    assert (prototypes.k, prototypes.d) == (5, 3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_tensors_keep_their_values_and_their_type_is_noted(dtype):
    weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    prototypes = Prototypes.from_weight(weight)
    assert prototypes.dtype == dtype
    np.testing.assert_array_equal(prototypes.rows, weight.double().numpy())


def test_tensors_may_be_views_parameters_or_transposed():
    weight = torch.arange(1.0, 25.0).reshape(4, 6)
    expected = weight.numpy()
    for view in (torch.nn.Parameter(weight), weight.T.contiguous().T, weight.clone()):
        np.testing.assert_array_equal(Prototypes.from_weight(view).rows, expected)
    np.testing.assert_array_equal(Prototypes.from_weight(weight[::2, 1:]).rows, expected[::2, 1:])
    np.testing.assert_array_equal(Prototypes.from_weight(expected[:, ::2]).rows, expected[:, ::2])


def test_big_endian_weights_keep_their_values():
    weight = np.array([[1.0, 2.0], [3.0, 4.5]])
    for dtype in (">f4", ">f8"):
        np.testing.assert_array_equal(Prototypes.from_weight(weight.astype(dtype)).rows, weight)


def test_the_effective_row_of_weight_norm_is_scale_times_direction():
    v = np.array([[3.0, 4.0], [0.0, -2.0], [1.0, 1.0]])
    prototypes = Prototypes.from_weight(v, scale=np.array([[2.0], [0.5], [-3.0]]))
    assert prototypes.norms.tolist() == [2.0, 0.5, 3.0]
    expected = np.array([[0.6, 0.8], [0.0, -1.0], [-(0.5**0.5), -(0.5**0.5)]])
    np.testing.assert_allclose(prototypes.unit_rows(), expected, atol=1e-15)
    assert v[2, 0] == 1.0  # the caller's array is as it was


def test_weight_norm_agrees_with_torch_after_the_cached_weight_went_stale():
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(6, 4, bias=False))
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    with torch.no_grad():
        v.mul_(3.0)[0].neg_()
        g.add_(0.25)
    prototypes = Prototypes.from_weight(v, scale=g)
    effective = prototypes.unit_rows() * prototypes.norms[:, None]
    np.testing.assert_allclose(effective, layer.weight.detach().numpy(), rtol=2e-6)


def test_a_bias_is_kept_and_does_not_change_directions():
    weight = np.eye(3)
    prototypes = Prototypes.from_weight(weight, bias=torch.tensor([1.0, 2.0, 3.0]))
    assert prototypes.bias.tolist() == [1.0, 2.0, 3.0]
    assert prototypes.bias.dtype == np.float64
    np.testing.assert_array_equal(prototypes.unit_rows(), weight)
    assert Prototypes.from_weight(weight).bias is None


def test_unit_rows_have_unit_norm_for_any_selection():
    rows = np.random.default_rng(1).standard_normal((10, 4)) * 1e-18
    prototypes = Prototypes.from_weight(rows.astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(prototypes.unit_rows(), axis=1), 1, rtol=1e-15)
    picked = np.array([7, 0, 7])
    np.testing.assert_array_equal(prototypes.unit_rows(picked), prototypes.unit_rows()[picked])
    np.testing.assert_array_equal(prototypes.unit_rows(slice(2, 5)), prototypes.unit_rows()[2:5])


@pytest.mark.parametrize("size", [1e-320, 1e-300, 1e-150, 1.0, 1e150, 1e300])
def test_norms_are_true_even_where_squares_leave_float64(size):
    weight = np.array([[3.0, 4.0], [0.0, 2.0], [5.0, 12.0]]) * size
    prototypes = Prototypes.from_weight(weight)
    np.testing.assert_allclose(prototypes.norms, np.array([5.0, 2.0, 13.0]) * size, rtol=1e-3)
    np.testing.assert_allclose(
        prototypes.unit_rows(), [[0.6, 0.8], [0, 1], [5 / 13, 12 / 13]], rtol=1e-3
    )


entries = st.floats(-1e30, 1e30) | st.sampled_from([5e-324, 1e-310, 1e300, -1e305])


@given(arrays(np.float64, (3, 4), elements=entries).filter(lambda w: w.any(axis=1).all()))
def test_rows_are_the_stored_ones_up_to_a_power_of_two_per_row(weight):
    prototypes = Prototypes.from_weight(weight)
    for stored, kept in zip(weight, prototypes.rows, strict=True):
        largest = int(np.abs(stored).argmax())
        factor = Fraction(float(kept[largest])) / Fraction(float(stored[largest]))
        assert factor.numerator & (factor.numerator - 1) == 0
        assert factor.denominator & (factor.denominator - 1) == 0
        for a, b in zip(stored, kept, strict=True):
            # what falls below the range of float64 is more than 10^270 times below the largest
            lost = abs(Fraction(float(b)) - factor * Fraction(float(a)))
            assert lost <= Fraction(1, 2**900) * abs(Fraction(float(kept[largest])))


def test_the_rows_cannot_be_written_and_the_callers_array_still_can():
    weight = np.eye(3, dtype=np.float32)
    prototypes = Prototypes.from_weight(weight)
    for array in (prototypes.rows, prototypes.norms):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
    weight[0, 0] = 2.0


def test_what_was_audited_is_kept():
    prototypes = Prototypes.from_weight(
        np.eye(2), name="head", branch="teacher", tensor_keys=("a", "b"), source="x.pth"
    )
    assert (prototypes.name, prototypes.branch) == ("head", "teacher")
    assert (prototypes.tensor_keys, prototypes.source) == (("a", "b"), "x.pth")
    assert repr(prototypes) == "Prototypes('head', k=2, d=2, dtype='float64', branch='teacher')"


def broken(row, value):
    weight = np.ones((4, 3), dtype=np.float32)
    weight[row:, 1] = value
    return weight


def signalling(dtype):
    """A NaN as it is in a file with damaged bits: casting it warns."""
    bits = {np.float16: 0x7D01, np.float32: 0x7F8D0001}[dtype]
    weight = np.ones((2, 3), dtype=dtype)
    weight.view(f"u{weight.itemsize}")[1, 1] = bits
    return weight


@pytest.mark.parametrize(
    ("weight", "arguments", "message"),
    [
        (np.ones(3), {}, r"must be a k x d matrix, got shape \(3,\)"),
        (np.ones((2, 3, 4)), {}, r"got shape \(2, 3, 4\)"),
        (np.ones((0, 3)), {}, r"got shape \(0, 3\)"),
        (np.ones((3, 0)), {}, r"got shape \(3, 0\)"),
        (np.ones((1, 3)), {}, r"K = 1, so there is nothing to compare\. Redundancy needs at least"),
        (broken(2, np.nan), {}, r"2 of 4 prototypes hold NaN or infinite .*first at index 2"),
        (broken(1, np.inf), {}, r"3 of 4 prototypes hold NaN or infinite .*first at index 1"),
        (broken(3, -np.inf).astype(np.float64), {}, r"1 of 4 .*NaN or infinite .*index 3"),
        (signalling(np.float32), {}, "1 of 2 prototypes hold NaN .*index 1"),
        (signalling(np.float16), {}, "1 of 2 prototypes hold NaN .*index 1"),
        (
            np.eye(4)[:, :3],
            {},
            r"1 of 4 prototypes are all zero .*first at index 3.*use an earlier",
        ),
        (np.ones((2, 3), dtype=np.int64), {}, "must be floating point, got int64"),
        (np.ones((2, 3), dtype=np.complex64), {}, "must be floating point, got complex64"),
        (torch.ones(2, 3, dtype=torch.int8), {}, "must be floating point, got int8"),
        (np.eye(2), {"scale": np.ones(3)}, "2 rows but 3 weight-norm scales"),
        (np.eye(2), {"scale": np.array([1.0, 0.0])}, "1 of 2 .*scale of zero.*index 1"),
        (np.eye(2), {"scale": np.array([np.nan, 1.0])}, "1 of 2 .*infinite weight-norm"),
        (
            np.eye(2),
            {"scale": signalling(np.float32)[1, :2]},
            "1 of 2 .*infinite weight-norm scale",
        ),
        (np.eye(2), {"bias": np.ones(1)}, "2 rows but 1 biases"),
        (np.eye(2), {"bias": signalling(np.float32)[1, :2]}, "1 of 2 .*infinite bias .*index 1"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_one_line(weight, arguments, message):
    with pytest.raises(PrototypeError, match=message) as caught:
        Prototypes.from_weight(weight, name="head", **arguments)
    assert "\n" not in str(caught.value)


def test_numpy_weights_need_no_torch():
    code = (
        "import sys, numpy as np; from collapse_audit import audit_prototypes, Prototypes;"
        "audit_prototypes(Prototypes.from_weight(np.eye(9)[[0, 1, 2, 0]]));"
        "print(*sorted({'torch', 'sklearn', 'pandas', 'matplotlib', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
