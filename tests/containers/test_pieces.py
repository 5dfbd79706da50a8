"""Tensors of which several files hold a piece each."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from collapse_audit.containers.pieces import Piece, gathered
from collapse_audit.errors import CheckpointError

WHOLE = np.arange(6 * 5 * 4, dtype=np.float32).reshape(6, 5, 4)


def piece(*cuts: slice, of: Any = WHOLE) -> Piece:
    start = tuple(cut.indices(n)[0] for cut, n in zip(cuts, of.shape, strict=True))
    return Piece(start, of[cuts].shape, of[cuts].copy, (start, of[cuts].shape))


def grid(*borders: list[int]) -> list[Piece]:
    """The pieces between borders along each dimension."""
    spans = []
    for n, inner in zip(WHOLE.shape, borders, strict=True):
        ends = [0, *sorted(inner), n]
        spans.append([slice(a, b) for a, b in itertools.pairwise(ends)])
    return [piece(*cuts) for cuts in itertools.product(*spans)]


borders = st.tuples(*(st.lists(st.integers(0, n), max_size=3) for n in WHOLE.shape))


@given(borders=borders, data=st.data(), known=st.booleans())
def test_pieces_in_any_order_make_up_the_whole(borders: Any, data: Any, known: bool) -> None:
    pieces = data.draw(st.permutations(grid(*borders)))
    tensor = gathered(("x",), "float32", pieces, "run", WHOLE.shape if known else None)
    assert tensor.shape == WHOLE.shape
    np.testing.assert_array_equal(tensor.read(), WHOLE, strict=True)


@given(borders=borders, data=st.data())
def test_a_piece_that_is_missing_is_noticed_before_reading(borders: Any, data: Any) -> None:
    pieces = [p for p in grid(*borders) if 0 not in p.shape]
    assume(len(pieces) > 1)
    gone = data.draw(st.sampled_from(pieces))
    rest = [p for p in pieces if p is not gone]
    with pytest.raises(CheckpointError, match=r"run: x: its \d+ pieces do not make up \[6, 5, 4\]"):
        gathered(("x",), "float32", rest, "run", WHOLE.shape)


def test_a_piece_that_every_rank_wrote_counts_once() -> None:
    copies = [piece(slice(0, 6), slice(0, 5), slice(0, 4)) for _ in range(3)]
    np.testing.assert_array_equal(gathered(("x",), "float32", copies, "run").read(), WHOLE)


def test_pieces_that_overlap_are_refused() -> None:
    every = slice(None)
    overlapping = [piece(slice(0, 4), every, every), piece(slice(2, 4), every, every)]
    tensor = gathered(("x",), "float32", overlapping, "run", WHOLE.shape)
    with pytest.raises(CheckpointError, match="its 2 pieces overlap"):
        tensor.read()


def test_a_piece_beyond_the_whole_and_one_of_other_dimensions_are_refused() -> None:
    every = slice(None)
    with pytest.raises(CheckpointError, match="reaches beyond the whole"):
        gathered(("x",), "float32", [piece(every, every, every)], "run", (6, 5, 3))
    flat = Piece((0,), (120,), lambda: WHOLE.reshape(-1), 0)
    for pieces, shape in (([piece(every, every, every), flat], None), ([flat], WHOLE.shape)):
        with pytest.raises(CheckpointError, match="different numbers of dimensions"):
            gathered(("x",), "float32", pieces, "run", shape)


def test_equal_places_are_one_storage() -> None:
    first, second = (gathered(("x",), "float32", grid([3], [], []), "run") for _ in range(2))
    assert first.storage == second.storage
    assert first.storage != gathered(("x",), "float32", grid([2], [], []), "run").storage
