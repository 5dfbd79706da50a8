"""The tasks of this package, from raw rows to the answer: norms and checks are part of the time."""

from __future__ import annotations

import os
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.inputs import EPSILON, Rows
from benchmarks.methods import Answer, Method, Read, Run, Task, chords, nearest_distances
from collapse_audit.prototypes import Prototypes
from collapse_audit.redundancy import Redundancy, measure_redundancy
from collapse_audit.similarity import (
    Arithmetic,
    Comparison,
    Cover,
    Links,
    Nearest,
    SweepLevel,
    Threshold,
    choose_panels,
    leader_cover,
    link_groups,
    survey,
)

LEVELS = tuple(round(0.005 * level, 3) for level in range(1, 41))
_MOST = 1 << 20
_CHECKED_ROWS = 16
# `Nearest.distance` promises a relative 1e-12; a few roundings of the check itself come on top.
_RELATIVE = 1e-9


def methods(device: str = "cpu") -> list[Method]:
    """The three tasks, each with the arithmetic chosen by trial and with numpy's float32."""
    kinds: dict[str, tuple[Arithmetic, str]] = {
        "auto": ("auto", ""),
        "float32": ("numpy", ", float32 forced"),
    }
    tasks: tuple[tuple[Task, str, Run, Read], ...] = (
        ("audit", "audit (cover, components, degrees)", _audit, _read_audit),
        ("sweep", f"sweep of {len(LEVELS)} levels", _sweep, _read_sweep),
        ("nearest", "nearest prototypes", _nearest, _read_nearest),
        ("whole", "whole default audit (all of these)", _whole, _read_whole),
    )
    return [
        Method(
            name=f"{task}-{name}",
            label=label + suffix,
            task=task,
            run=partial(run, device=device, arithmetic=arithmetic),
            read=read,
            start=partial(_choose, device=device, arithmetic=arithmetic),
            most=_MOST,
            certified=True,
        )
        for name, (arithmetic, suffix) in kinds.items()
        for task, label, run, read in tasks
    ]


def _choose(rows: Rows, *, device: str, arithmetic: Arithmetic) -> object:
    return choose_panels(Prototypes.from_weight(rows), device=device, arithmetic=arithmetic)


def _compare(
    rows: Rows, *, device: str, arithmetic: Arithmetic, epsilon: float = EPSILON
) -> Comparison:
    prototypes = Prototypes.from_weight(rows)
    panels = choose_panels(prototypes, device=device, arithmetic=arithmetic)
    return Comparison(prototypes, Threshold(epsilon), panels=panels)


def _audit(rows: Rows, **how: Any) -> tuple[str, Cover, Links]:
    comparison = _compare(rows, **how)
    cover = leader_cover(comparison)
    return type(comparison.panel).__name__, cover, link_groups(comparison, cover)


def _read_audit(found: tuple[str, Cover, Links], rows: Rows) -> Answer:
    panel, cover, links = found
    return Answer(
        counts={
            "greedy": len(cover.leaders),
            "components": links.num_components,
            "isolated": int((links.neighbours == 0).sum()),
            "pairs": int(links.neighbours.sum()) // 2,
        },
        faults=() if int(cover.sizes.sum()) == len(rows) else ("sizes do not sum to K",),
        note=panel,
    )


def _sweep(rows: Rows, **how: Any) -> tuple[str, tuple[SweepLevel, ...]]:
    comparison = _compare(rows, **how)
    return type(comparison.panel).__name__, survey(comparison, LEVELS, nearest=False).levels


def _read_sweep(found: tuple[str, tuple[SweepLevel, ...]], rows: Rows) -> Answer:
    panel, levels = found
    here = levels[LEVELS.index(EPSILON)]
    curve = np.array([(level.components, level.isolated) for level in levels])
    faults = [] if (np.diff(curve, axis=0) <= 0).all() else ["the curve rises with epsilon"]
    for level in (levels[0], levels[-1]):
        comparison = _compare(rows, device="cpu", arithmetic="auto", epsilon=level.threshold)
        cover = leader_cover(comparison)
        links = link_groups(comparison, cover)
        alone = int((links.neighbours == 0).sum())
        if (len(cover.leaders), links.num_components, alone) != (
            level.greedy,
            level.components,
            level.isolated,
        ):
            faults.append(f"level {level.threshold} differs from a count from scratch")
    return Answer(
        counts={
            "greedy": here.greedy,
            "components": here.components,
            "isolated": here.isolated,
        },
        faults=tuple(faults),
        note=panel,
    )


def _nearest(rows: Rows, **how: Any) -> tuple[str, Nearest]:
    comparison = _compare(rows, **how)
    found = survey(comparison).nearest
    assert found is not None
    return type(comparison.panel).__name__, found


def _read_nearest(found: tuple[str, Nearest], rows: Rows) -> Answer:
    panel, nearest = found
    some = np.random.default_rng(0).choice(len(rows), _CHECKED_ROWS, replace=False)
    faults = []
    if not _close(nearest.distance, chords(rows, nearest.index)):
        faults.append("a distance is not that of the neighbour named")
    if not _close(nearest.distance[some], nearest_distances(rows, some)):
        faults.append("a neighbour is not the nearest one by brute force")
    return Answer(distance=nearest.distance, faults=tuple(faults), note=panel)


def _whole(rows: Rows, *, device: str, arithmetic: Arithmetic) -> Redundancy:
    with mock.patch.dict(os.environ, COLLAPSE_AUDIT_ARITHMETIC=arithmetic):
        return measure_redundancy(Prototypes.from_weight(rows), device=device)


def _read_whole(found: Redundancy, rows: Rows) -> Answer:
    nearest = found.nearest
    assert nearest is not None
    answer = _read_nearest(("", nearest), rows)
    counts = {
        "greedy": found.num_unique,
        "components": found.components,
        "isolated": int((found.neighbours == 0).sum()),
        "pairs": int(found.neighbours.sum()) // 2,
    }
    return Answer(counts=counts, distance=answer.distance, faults=answer.faults)


def _close(first: Any, second: Any) -> bool:
    return bool((np.abs(first - second) <= _RELATIVE * np.maximum(first, second) + 1e-28).all())
