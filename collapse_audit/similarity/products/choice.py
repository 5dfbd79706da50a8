"""Which products a head is compared with: the pair of panels, and how far its rows are folded."""

from __future__ import annotations

import os
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from time import process_time
from typing import Literal, TypeAlias, get_args

import numpy as np

from collapse_audit.devices import pick_device
from collapse_audit.errors import ParameterError
from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.products.float32 import (
    Float32Panel,
    RecheckPanel,
    TorchFloat32Panel,
)
from collapse_audit.similarity.products.panel import HostPanel, Operand, Panel, PanelKind
from collapse_audit.similarity.products.rows import (
    Float64,
    FoldedRows,
    Index,
    SomeRows,
    UnitRows,
    leading_directions,
)

Arithmetic: TypeAlias = Literal["auto", "numpy", "float32", "bfloat16"]

# Importing torch costs seconds; below this many prototypes numpy is done before that. So it is with
# more of them in a head most of whose prototypes have copies, unless there are very many.
_WORTH_IMPORTING_TORCH = 32768
_ALWAYS_TORCH = 262_144
_SAMPLED, _COPY = 1024, 0.5
_VARIABLE = "COLLAPSE_AUDIT_ARITHMETIC"
# Rows and most dimensions of a trial, and columns whose scores are compared with float64.
_ROWS, _MOST_D, _CHECKED = 1024, 256, 256
# Folding pays while it leaves at most this share of pairs to exact arithmetic: 0.5 us each, and a
# further look at the tile. The sample cannot tell much less.
_FOLD_CANDIDATES = 5e-6
_FOLD_SAMPLE = 1024
_FOLDED_DIMENSIONS = (*range(48, 129, 4), *range(144, 513, 16))


@dataclass(frozen=True, slots=True)
class PanelPair:
    """What a head is compared with."""

    first: PanelKind  # makes the panel whose scores decide the clear pairs
    # Tells the kind that makes a cheaper and less precise one, for questions that only ask for
    # candidates, if there is one. Asked when it is first needed.
    coarse: Callable[[], type[Panel] | None] = lambda: None


NUMPY = PanelPair(Float32Panel)


def choose_panels(
    prototypes: Prototypes, *, device: str = "auto", arithmetic: Arithmetic | None = None
) -> PanelPair:
    """Kinds of panel to compare these prototypes with.

    The choice changes the time an audit takes and nothing else: every panel has a proved bound,
    and what it leaves open is decided exactly.

    Args:
        prototypes: What will be compared.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``: a CUDA device where there is one
            and the head is large enough to gain from it.
        arithmetic: Of the processor: ``"numpy"`` (float32, no torch), ``"float32"`` or
            ``"bfloat16"`` (torch), or ``"auto"``, the fastest in a trial. ``None`` reads the
            environment variable COLLAPSE_AUDIT_ARITHMETIC, and is ``"auto"`` without it.

    Returns:
        What makes panels from rows.

    Raises:
        ParameterError: If a name is unknown, or there is no such device.
        DeviceError: If the device is there but fails its self-test.
    """
    chosen = arithmetic or os.environ.get(_VARIABLE, "auto")
    if chosen not in get_args(Arithmetic):
        raise ParameterError(
            f"unknown arithmetic {chosen!r}.",
            hint=f"{_VARIABLE} may be one of {', '.join(get_args(Arithmetic))}.",
        )
    light = chosen == "numpy" or not _worth_importing_torch(prototypes)
    place = pick_device("cpu" if device == "auto" and light else device)
    if place != "cpu":
        from collapse_audit.similarity.products.cuda import DevicePanel, self_test

        self_test(place)
        return PanelPair(partial(DevicePanel, device=place))
    if chosen == "numpy" or (chosen == "auto" and light and "torch" not in sys.modules):
        return NUMPY

    from collapse_audit.similarity.products.bfloat16 import BFloat16Panel

    kinds: dict[str, type[HostPanel]] = {
        "bfloat16": BFloat16Panel,
        "float32": TorchFloat32Panel,
        "numpy": Float32Panel,
    }
    d = min(1 << (prototypes.d - 1).bit_length(), _MOST_D)
    if chosen == "auto":
        kind = min(kinds.values(), key=partial(product_seconds, d=d))
    else:
        kind = kinds[chosen]
    coarser = partial(_coarser_than_bfloat16, d)
    return PanelPair(kind, coarser) if kind is BFloat16Panel else PanelPair(kind)


def _worth_importing_torch(prototypes: Prototypes) -> bool:
    """Whether there is so much to multiply that a faster product makes up for the import."""
    if prototypes.k < _WORTH_IMPORTING_TORCH or prototypes.k >= _ALWAYS_TORCH:
        return prototypes.k >= _ALWAYS_TORCH
    sample = prototypes.unit_rows(slice(None, None, max(1, prototypes.k // _SAMPLED)))
    copies = (sample @ sample.T > 1.0 - _COPY).sum(axis=1) > 1  # one is the prototype itself
    return bool(2 * np.count_nonzero(copies) < len(sample))


def _coarser_than_bfloat16(d: int) -> type[Panel] | None:
    """Whole numbers, where this processor multiplies them faster than bf16."""
    import torch

    from collapse_audit.similarity.products.bfloat16 import BFloat16Panel
    from collapse_audit.similarity.products.int8 import Int8Panel

    if not hasattr(torch, "_int_mm"):  # not public, so it may go
        return None
    faster = product_seconds(Int8Panel, d=d) < product_seconds(BFloat16Panel, d=d)
    return Int8Panel if faster else None


@cache
def product_seconds(kind: type[HostPanel], *, d: int) -> float:
    """CPU seconds of 1,024 x 1,024 scores in d dimensions, the best of nine; once per process."""
    # Wall time would measure the neighbours on a busy machine. Infinite if a score breaks the
    # panel's bound, or torch has no such product here.
    rows = Operand(np.arange(_ROWS))
    times = []
    try:
        for trial in _trial_heads(d):
            panel = kind(UnitRows(trial))
            unit = trial.unit_rows()
            tile = panel.tile(rows, rows)[:, :_CHECKED]
            error = np.abs(panel.values(tile) - unit @ unit[:_CHECKED].T).max()
            if not error <= panel.error + panel.rounding:  # also NaN
                return float("inf")
            for _ in range(3):
                start = process_time()
                panel.tile(rows, rows)
                times.append(process_time() - start)
    except RuntimeError:  # torch: not implemented for this processor
        return float("inf")
    return min(times)


def _trial_heads(d: int) -> Iterator[Prototypes]:
    """Random directions; sums of one sign; and the largest numbers that an integer row can hold."""
    rng = np.random.default_rng(0)
    rows: Float64 = rng.standard_normal((_ROWS, d))
    for head in (rows, np.abs(rows) + 30.0, np.sign(rows)):
        yield Prototypes.from_weight(head.astype(np.float32))


class PanelSet:
    """The panels of one head, built when they are first needed and shared by all thresholds."""

    def __init__(self, prototypes: Prototypes, kinds: PanelPair) -> None:
        self._prototypes = prototypes
        self._kinds = kinds
        self.first = kinds.first(UnitRows(prototypes))  # decides the clear pairs
        self.recheck: Panel = RecheckPanel(prototypes)  # finer, for what the first leaves open
        self._folded: dict[int, Panel] = {}

    @cached_property
    def _coarser(self) -> type[Panel] | None:
        return self._kinds.coarse()

    @cached_property
    def coarse(self) -> Panel:
        """The cheapest product of the unit rows, for questions that only ask for candidates."""
        return self._coarser(UnitRows(self._prototypes)) if self._coarser else self.first

    def folded(self, apart: Index, cosine: float) -> Panel | None:
        """The cheapest panel of folded rows that settles almost all pairs of ``apart``, if any."""
        # no two of those are closer than the cosine, which candidates may reach
        kind = self._coarser or self._kinds.first
        sample = Operand(np.arange(len(apart[:_FOLD_SAMPLE])))
        most = _FOLD_CANDIDATES * len(sample) ** 2

        def settles(dimensions: int) -> bool:
            trial = kind(SomeRows(self._fold(dimensions), apart[:_FOLD_SAMPLE]))
            return trial.candidates(sample, sample, cosine).size <= most

        tried = [n for n in _FOLDED_DIMENSIONS if 2 * n <= self._prototypes.d]
        fewest = bisect_left(tried, True, key=settles)
        if fewest == len(tried):
            return None
        dimensions = tried[fewest]
        if dimensions not in self._folded:
            self._folded[dimensions] = kind(self._fold(dimensions))
        return self._folded[dimensions]

    def _fold(self, dimensions: int) -> FoldedRows:
        """The rows folded into fewer dimensions, not yet in a panel."""
        columns = (self._coarser or self.first).tail_columns
        directions = self._directions[:, : dimensions - columns]
        return FoldedRows(self._prototypes, directions, tail_columns=columns)

    @cached_property
    def _directions(self) -> Float64:
        widest = min(_FOLDED_DIMENSIONS[-1], self._prototypes.d // 2)
        return leading_directions(self._prototypes, widest)
