"""Rows in whole numbers: what their rounding may lose, and when they are not used."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from collapse_audit import Prototypes
from collapse_audit.similarity import choose_panels
from collapse_audit.similarity.products import choice
from collapse_audit.similarity.products.bfloat16 import BFloat16Panel
from collapse_audit.similarity.products.int8 import Int8Panel, _rounded_up
from collapse_audit.similarity.products.panel import Operand
from collapse_audit.similarity.products.rows import FoldedRows, UnitRows, leading_directions

LENGTHS = arrays(np.float32, 6, elements=st.floats(0, 127, width=32))


@given(lengths=LENGTHS, columns=st.integers(1, 8))
def test_tails_in_whole_numbers_multiply_to_little_more_than_real_ones_and_never_to_less(
    lengths, columns
):
    whole = _rounded_up(np.repeat(lengths[:, None], columns, axis=1), 127)
    assert whole.shape == (6, columns)
    assert ((whole >= 0) & (whole <= 127) & (whole == np.rint(whole))).all()
    real = columns * np.outer(lengths, lengths).astype(np.float64)
    products = whole.astype(np.float64) @ whole.T
    assert (products >= real * (1 - 1e-6)).all()
    # Sums are less than one too large, and entries of a row differ by one at most.
    sums = columns * lengths.astype(np.float64) + 1.001
    assert (products <= np.outer(sums, sums) / columns + columns / 4).all()


HEADS = {
    "random": lambda rng: rng.standard_normal((200, 96)),
    "leaning one way": lambda rng: rng.standard_normal((200, 96)) + 3.0,
    "in few dimensions": lambda rng: rng.standard_normal((200, 5)) @ rng.standard_normal((5, 96)),
    "near copies": lambda rng: (
        rng.standard_normal((20, 96)).repeat(10, axis=0) + 0.1 * rng.standard_normal((200, 96))
    ),
    "one long entry": lambda rng: np.eye(96)[rng.integers(0, 96, 200)],
}


@pytest.mark.parametrize("dimensions", [24, 48])
@pytest.mark.parametrize("head", HEADS)
def test_a_folded_score_in_whole_numbers_is_below_no_cosine_by_more_than_its_bound(
    head, dimensions
):
    prototypes = Prototypes.from_weight(HEADS[head](np.random.default_rng(0)).astype(np.float32))
    tail = Int8Panel.tail_columns
    directions = leading_directions(prototypes, dimensions - tail)
    folded = FoldedRows(prototypes, directions, tail_columns=tail)
    panel = Int8Panel(folded)
    everything = Operand(np.arange(prototypes.k))
    scores = panel.values(panel.tile(everything, everything)).astype(np.float64)
    unit, rows = prototypes.unit_rows(), folded.block(slice(None)).astype(np.float64)
    assert (scores >= unit @ unit.T - panel.error).all()
    assert (scores >= rows @ rows.T - panel.error).all()
    assert (scores <= rows @ rows.T + panel.error + 0.02).all()
    assert panel.error < 0.03
    # The bound is not far above what can happen.
    assert (rows @ rows.T - scores).max() > 0.1 * panel.error


def test_whole_numbers_leave_room_for_the_sum_of_very_long_rows():
    rows = np.ones((2, 300_000), dtype=np.float32)
    rows[1, ::2] = -1.0
    panel = Int8Panel(UnitRows(Prototypes.from_weight(rows)))
    both = Operand(np.arange(2))
    assert panel.tile(both, both).dtype == np.int32
    scores = panel.values(panel.tile(both, both))
    np.testing.assert_allclose(scores, [[1, 0], [0, 1]], atol=panel.error)


def saturating(left, right, *, out):
    """What some kernels without VNNI do: 128 is added to one factor, and pairs of products are kept
    in 16 bits."""
    products = (left.int() + 128)[:, None, :] * right.T.int()[None]
    pairs = products.unflatten(2, (-1, 2)).sum(3).clamp(-(2**15), 2**15 - 1)
    return out.copy_(pairs.sum(2) - 128 * right.int().sum(0))


@pytest.mark.parametrize("product", [saturating, None])
def test_whole_numbers_are_not_used_where_their_product_is_wrong_or_missing(monkeypatch, product):
    monkeypatch.setattr(choice, "_ROWS", 32)
    monkeypatch.setattr(choice, "product_seconds", choice.product_seconds.__wrapped__)
    assert choice.product_seconds(Int8Panel, d=256) < float("inf")

    def missing(*_, **__):
        raise RuntimeError('"_int_mm" not implemented for this processor')

    monkeypatch.setattr(torch, "_int_mm", product or missing)
    pair = choose_panels(Prototypes.from_weight(np.eye(4)), arithmetic="bfloat16")
    assert pair.first is BFloat16Panel
    assert choice.product_seconds(Int8Panel, d=256) == float("inf")
    assert pair.coarse() is None
    monkeypatch.delattr(torch, "_int_mm")
    assert pair.coarse() is None
