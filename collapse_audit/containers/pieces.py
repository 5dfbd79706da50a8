"""Tensors of which several files hold a piece each."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from collapse_audit.containers.tensors import StoredTensor, Values, as_values, shaped
from collapse_audit.errors import CheckpointError
from collapse_audit.words import printable


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A block of a tensor."""

    start: tuple[int, ...]  # of its first value in the whole tensor, along each dimension
    shape: tuple[int, ...]
    read: Callable[[], Values]
    place: Hashable  # where its bytes are: equal for the same bytes

    @property
    def place_in_whole(self) -> tuple[slice, ...]:
        """The block as an index of the whole tensor."""
        return tuple(slice(at, at + n) for at, n in zip(self.start, self.shape, strict=True))


def gathered(
    path: tuple[str, ...],
    dtype: str,
    pieces: Sequence[Piece],
    name: str,
    shape: tuple[int, ...] | None = None,
) -> StoredTensor:
    """One tensor of its pieces (at least one); its shape is by default as far as they reach."""
    where = f"{name}: {printable('/'.join(path))}"
    ranks = {len(piece.start) for piece in pieces} | {len(piece.shape) for piece in pieces}
    if len(ranks) != 1 or (shape is not None and ranks != {len(shape)}):
        raise _damaged(where, "its pieces have different numbers of dimensions")
    ends = [
        tuple(at + n for at, n in zip(piece.start, piece.shape, strict=True)) for piece in pieces
    ]
    whole = shape if shape is not None else tuple(map(max, zip(*ends, strict=True)))
    if any(end > n for reach in ends for end, n in zip(reach, whole, strict=True)):
        raise _damaged(where, "a piece reaches beyond the whole")
    distinct: dict[
        tuple[tuple[int, ...], ...], dict[Hashable, Piece]
    ] = {}  # by block, by place: of copies
    for piece in pieces:
        if 0 not in piece.shape:
            distinct.setdefault((piece.start, piece.shape), {})[piece.place] = piece
    if sum(math.prod(shape) for _, shape in distinct) != math.prod(whole):
        raise _damaged(where, f"its {len(distinct)} pieces do not make up {list(whole)}")

    def read_alike(copies: Iterable[Piece]) -> tuple[tuple[slice, ...], Values]:
        first, *others = copies
        values = first.read()
        if any(other.read().tobytes() != values.tobytes() for other in others):
            raise _damaged(where, "two files hold different values of one piece")
        return first.place_in_whole, values

    def read() -> Values:
        if not distinct:
            return shaped(as_values(b"", dtype), whole)
        # all of them before the whole is made: an index can claim any size
        parts = [read_alike(copies.values()) for copies in distinct.values()]
        if len(parts) == 1:
            return parts[0][1].reshape(whole)
        filled = np.zeros(whole, bool)
        for place, _ in parts:
            if filled[place].any():
                raise _damaged(where, f"its {len(distinct)} pieces overlap")
            filled[place] = True
        values = np.empty(whole, parts[0][1].dtype)
        for place, part in parts:
            values[place] = part.reshape(values[place].shape)
        return values

    storage = tuple(sorted(str(place) for copies in distinct.values() for place in copies))
    return StoredTensor(path, whole, dtype, storage, read)


def _damaged(where: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{where}: {what}.",
        hint="Files of the checkpoint are missing or damaged: compare the folder with its source.",
    )
