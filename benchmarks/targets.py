"""What the engine should reach at K = 65,536 and D = 256 on two cores, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.records import Record

_K, _D = 65536, 256


@dataclass(frozen=True, slots=True)
class Target:
    """A target: ``method`` takes at least so many times what ``base`` takes, or at most.

    Attributes:
        case: Name of the input.
        method: What is divided.
        base: What it is divided by.
        limit: The ratio to reach.
        at_least: Whether the ratio must not be smaller than the limit; else not larger.
        bf16: Whether the target is for processors with bf16 in hardware only.
    """

    case: str
    method: str
    base: str
    limit: float
    at_least: bool = True
    bf16: bool = True


TARGETS = (
    Target("collapsed", "faiss-range", "audit-auto", 100),
    Target("healthy", "faiss-range", "audit-auto", 12),
    Target("collapsed", "faiss-range", "audit-float32", 30, bf16=False),
    Target("healthy", "faiss-range", "audit-float32", 2, bf16=False),
    Target("collapsed", "product", "audit-auto", 12),
    Target("healthy", "product", "audit-auto", 3),
    Target("collapsed", "sweep-auto", "audit-auto", 3, at_least=False),
    Target("healthy", "sweep-auto", "audit-auto", 1.6, at_least=False),
    Target("collapsed", "faiss-knn", "nearest-auto", 4),
    Target("healthy", "faiss-knn", "nearest-auto", 4),
    Target("near-threshold", "audit-auto", "torch-threshold", 1.5, at_least=False),
    Target("healthy", "whole-float32", "triangle", 1.3, at_least=False, bf16=False),
    Target("collapsed", "whole-float32", "triangle", 0.3, at_least=False, bf16=False),
    Target("near-threshold", "whole-float32", "triangle", 2, at_least=False, bf16=False),
)
# 10^6 bytes above the input, for every task of ours on every input.
MOST_MEMORY_MB = 300.0


def verdicts(records: Sequence[Record]) -> Iterator[tuple[Target, float, float]]:
    """Every target that was measured, with the ratio of wall times and of CPU times."""
    by_name = {record.name: record for record in records if (record.k, record.d) == (_K, _D)}
    for target in TARGETS:
        record = by_name.get(target.case)
        if record is None:
            continue
        wall = record.ratio(target.method, target.base, "wall")
        cpu = record.ratio(target.method, target.base, "cpu")
        if wall is not None and cpu is not None:
            yield target, wall, cpu


def most_memory(records: Sequence[Record]) -> float | None:
    """Largest peak above the input of our own tasks at that size; ``None`` if unknown."""
    peaks = [
        sample.peak_mb
        for record in records
        if (record.k, record.d) == (_K, _D)
        for method, samples in record.samples.items()
        if method.startswith(("audit-", "sweep-", "nearest-"))
        for sample in samples
    ]
    return max(peaks, default=None)
