"""Attacks on the error bounds: no arithmetic may be further off, and none far less."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from collapse_audit import Prototypes
from collapse_audit.similarity.predicate import ExactPairs
from collapse_audit.similarity.products.bounds import (
    accumulation_bound,
    float64_bound,
    format_bound,
    gamma,
    measured_bound,
)
from collapse_audit.similarity.products.panel import Operand
from collapse_audit.similarity.products.rows import UnitRows

SIGNIFICAND = {"float32": 24, "tf32": 11, "bfloat16": 8}
DIMENSIONS = [2, 16, 64, 256, 1024, 4096]


def rounded(values, arithmetic):
    """To nearest, ties to even, in a significand of so many bits (any exponent)."""
    mantissa, exponent = np.frexp(np.asarray(values, dtype=np.float64))
    bits = SIGNIFICAND[arithmetic]
    return np.ldexp(np.rint(np.ldexp(mantissa, bits)), exponent - bits)


def truncated(value):
    """A float64 to float32, towards zero."""
    nearest = np.float32(value)
    return np.nextafter(nearest, np.float32(0)) if abs(float(nearest)) > abs(value) else nearest


def summed(x, y, how):
    """A dot product of exact products and float32 sums in some order."""
    products = x.astype(np.float64) * y.astype(np.float64)
    if how == "pairwise":
        terms = products.astype(np.float32)
        while len(terms) > 1:
            terms = np.append(terms, np.float32(0)) if len(terms) % 2 else terms
            terms = terms[::2] + terms[1::2]
        return float(terms[0])
    total = np.float32(0)
    for product in reversed(products) if how == "backwards" else products:
        exact = float(total) + float(product)  # one rounding: a fused multiply-add
        total = truncated(exact) if how == "truncating" else np.float32(exact)
    return float(total)


def exact_dot(x, y):
    return math.fsum((x * y).tolist()) if x.dtype == np.float64 else exact_dot(x * 1.0, y * 1.0)


def at_the_tie(d, arithmetic, side):
    """A unit row, nearly all entries of which are rounded by half a unit in the last place.

    The entry just above a power of two has the largest relative error; one entry takes what the
    norm lacks.
    """
    unit = 2.0 ** -SIGNIFICAND[arithmetic]
    entry = (1 + unit * (1 + side * 1e-6)) * 2.0 ** math.floor(-math.log2(d) / 2)
    count = min(d - 1, int((1 - 1e-9) / entry**2))
    row = np.full(d, 0.0)
    row[:count] = entry
    row[count] = math.sqrt(1 - count * entry**2)
    return row


@pytest.mark.parametrize("how", ["forwards", "backwards", "pairwise"])
@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("arithmetic", list(SIGNIFICAND))
def test_rows_at_the_rounding_tie_stay_within_the_bound_of_their_format(arithmetic, d, side, how):
    row = at_the_tie(d, arithmetic, side)
    bound = format_bound(arithmetic, d)
    signs = np.where(np.arange(d) % 3 == 0, -1.0, 1.0)
    for x, y in ((row, row), (row, -row), (row * signs, row * signs), (row, row[::-1])):
        computed = summed(rounded(x, arithmetic), rounded(y, arithmetic), how)
        assert abs(computed - exact_dot(x, y)) <= bound


@pytest.mark.parametrize("arithmetic", ["tf32", "bfloat16"])
@pytest.mark.parametrize("d", [64, 256, 1024])
def test_the_bound_of_a_format_is_not_vacuous(arithmetic, d):
    row = at_the_tie(d, arithmetic, -1)  # every entry is rounded down: the errors add up
    error = abs(summed(rounded(row, arithmetic), rounded(row, arithmetic), "forwards") - 1)
    assert format_bound(arithmetic, d) < 1.5 * error


def stagnating(d, ulps):
    """A row whose square is one large term and d - 1 that a float32 sum loses entirely."""
    row = np.full(d, math.sqrt(ulps * 2.0**-24 * 0.999))
    row[0] = math.sqrt(1 - d * 2.0**-24)
    return row.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("d", [64, 1024, 4096])
def test_sums_that_lose_every_term_stay_within_the_bound_and_near_it(d):
    row = stagnating(d, 0.5)
    error = abs(summed(row, row, "forwards") - exact_dot(row, row))
    assert error <= accumulation_bound(d)
    assert accumulation_bound(d) < 3 * error


@pytest.mark.parametrize("d", [64, 1024, 4096])
def test_sums_that_truncate_every_term_stay_within_the_bound_and_near_it(d):
    row = stagnating(d, 1.0)
    error = abs(summed(row, row, "truncating") - exact_dot(row, row))
    assert error <= accumulation_bound(d, truncating=True)
    assert accumulation_bound(d, truncating=True) < 10 * error


@given(st.data(), st.sampled_from(DIMENSIONS[:4]), st.sampled_from(list(SIGNIFICAND)))
def test_no_unit_rows_are_further_off_than_the_bounds(data, d, arithmetic):
    entries = st.floats(-1, 1, width=32) | st.sampled_from([0.0, 1.0, 1e-42, 1e-30, 2.0**-14])
    pair = data.draw(arrays(np.float64, (2, d), elements=entries))
    pair[:, 0] += np.where(np.abs(pair).max(axis=1) < 0.1, 1.0, 0.0)
    unit = pair / np.sqrt((pair**2).sum(axis=1, keepdims=True))
    stored = rounded(unit, arithmetic)
    with np.errstate(under="ignore"):
        stored = stored.astype(np.float32).astype(np.float64)  # denormals of float32 lose bits
    residual = np.sqrt(((unit - stored) ** 2).sum(axis=1)).max()
    measured = measured_bound(d, residual=residual)
    for how in ("forwards", "pairwise"):
        error = abs(summed(stored[0], stored[1], how) - exact_dot(unit[0], unit[1]))
        assert error <= measured
        assert error <= format_bound(arithmetic, d)


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize(
    "kind", ["random", "same sign", "signs", "one large", "near copies", "sparse", "ties"]
)
def test_a_panel_is_never_further_off_than_it_says(panels, kind, d):
    rng = np.random.default_rng(d)
    rows = {
        "random": lambda: rng.standard_normal((90, d)),
        "same sign": lambda: 1 + 1e-4 * rng.random((90, d)),
        "signs": lambda: np.sign(rng.standard_normal((90, d))),  # whole numbers at their largest
        "one large": lambda: np.eye(90, d) * 10 + rng.standard_normal((90, d)) / d**0.5,
        "near copies": lambda: rng.standard_normal(d) + 1e-6 * rng.standard_normal((90, d)),
        "sparse": lambda: np.where(rng.random((90, d)) < 0.03, rng.random((90, d)), 1e-12),
        "ties": lambda: np.stack([at_the_tie(d, "bfloat16", 1 - 2 * (i % 2)) for i in range(90)]),
    }[kind]()
    prototypes = Prototypes.from_weight(rows)
    made = panels.first(UnitRows(prototypes))
    unit = prototypes.unit_rows().astype(np.longdouble)
    true = np.einsum("id,jd->ij", unit, unit)
    part = true[::2, 1:]
    tile = made.tile(Operand(np.arange(0, 90, 2)), Operand(np.arange(1, 90))).copy()
    for cosine in (0.01, 0.6, 0.975, 0.99999):
        low, high = made.codes(cosine - made.error, cosine + made.error)
        assert (part[tile < low] <= cosine).all()
        assert (part[tile > high] > cosine).all()
    stored_in_fewer_bits = made.rounding * np.abs(part)
    error = np.abs(made.values(tile) - part)
    assert (error <= made.error * (1 + made.rounding) + stored_in_fewer_bits).all()


@pytest.mark.parametrize("name", ["numpy", "float32", "bfloat16"])
def test_a_panel_is_not_far_less_off_than_it_says(all_panels, name):
    format_ = "bfloat16" if name == "bfloat16" else "float32"
    rows = np.stack([at_the_tie(64, format_, -1)] * 2)
    made = all_panels[name].first(UnitRows(Prototypes.from_weight(rows)))
    both = Operand(np.arange(2))
    error = np.abs(made.values(made.tile(both, both)) - 1.0).max()
    assert made.error < (3 if name == "bfloat16" else 100) * error


def exact_cosine(x, y):
    a, b = ([Fraction(float(v)) for v in row] for row in (x, y))
    dot = sum((p * q for p, q in zip(a, b, strict=True)), Fraction(0))
    squares = sum(p * p for p in a) * sum(q * q for q in b)
    with localcontext(prec=60):
        square = Decimal((dot**2 / squares).numerator) / Decimal((dot**2 / squares).denominator)
        return square.sqrt().copy_sign(Decimal(dot.numerator))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 2, 16, 256, 1024])
def test_float64_cosines_are_within_their_bound_of_the_exact_ones(d, dtype):
    rng = np.random.default_rng(d)
    x = rng.standard_normal((12, d))
    x[:6] = np.abs(x[:6])
    x *= 10.0 ** rng.uniform(-18, 18, (12, 1))
    prototypes = Prototypes.from_weight(x.astype(dtype))
    first, second = np.arange(11), np.arange(1, 12)
    computed = ExactPairs(prototypes).scores(first, second)
    for i, j, cosine in zip(first, second, computed, strict=True):
        exact = exact_cosine(prototypes.rows[i], prototypes.rows[j])
        assert abs(Decimal(float(cosine)) - exact) <= Decimal(float64_bound(d))


@given(arrays(np.float64, (2, 9), elements=st.floats(-1, 1) | st.floats(0.999, 1)))
def test_float64_cosines_of_any_rows_are_within_their_bound(rows):
    if (np.abs(rows).max(axis=1) < 1e-3).any():
        return
    prototypes = Prototypes.from_weight(rows)
    cosine = ExactPairs(prototypes).scores(np.array([0]), np.array([1]))[0]
    exact = exact_cosine(prototypes.rows[0], prototypes.rows[1])
    assert abs(Decimal(float(cosine)) - exact) <= Decimal(float64_bound(9))


@pytest.mark.parametrize(
    ("computed", "expected"),
    [
        (format_bound("float32", 256), 1.6e-5),
        (format_bound("float32", 1024), 6.2e-5),
        (format_bound("tf32", 256), 1.0e-3),
        (format_bound("bfloat16", 256), 7.9e-3),
        (float64_bound(256), 5.8e-14),
        (gamma(256, 2.0**-24), 256 * 2.0**-24),
    ],
)
def test_the_bounds_have_their_published_size(computed, expected):
    assert computed == pytest.approx(expected, rel=0.03)


def test_gamma_is_infinite_where_it_proves_nothing():
    assert gamma(2**24, 2.0**-24) == math.inf
    assert gamma(2**24 - 1, 2.0**-24) == pytest.approx(2.0**24 - 1)


def test_truncating_hardware_gets_a_larger_bound():
    assert accumulation_bound(256, truncating=True) > 3.9 * accumulation_bound(256)
    rounding = measured_bound(256, residual=0.002)
    assert measured_bound(256, residual=0.002, truncating=True) > rounding
    assert format_bound("tf32", 256, truncating=True) > format_bound("tf32", 256)
