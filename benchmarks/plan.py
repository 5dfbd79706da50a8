"""What is measured where by default: all that a promise or a reader needs, in a few minutes."""

from __future__ import annotations

from benchmarks.inputs import INPUTS
from benchmarks.methods import Method

_PLAIN = ("collapsed", "healthy")
_SMALL = 16384
# On the other inputs the peers cost what they do on the plain ones.
_ELSEWHERE = frozenset(
    {"audit-auto", "audit-float32", "sweep-auto", "nearest-auto", "product", "faiss-range"}
)
# DBSCAN spends its time in the same search.
_ONLY_SMALL = frozenset({"sklearn-radius"})
# The worst case is promised as a multiple of this one.
_ADDED = frozenset({("near-threshold", "torch-threshold")})
# Every level is a worst case of its own: half a minute, and no other package to compare with.
_DROPPED = frozenset({("near-threshold", "sweep-auto")})


def inputs(k: int) -> tuple[str, ...]:
    """The inputs that are measured at a size unless others are asked for."""
    return _PLAIN if k <= _SMALL else tuple(INPUTS)


def planned(method: Method, name: str, k: int) -> bool:
    """Whether a method is measured on an input of a size unless all are asked for."""
    if name in _PLAIN:
        return k <= _SMALL or method.name not in _ONLY_SMALL
    dropped = k > _SMALL and (name, method.name) in _DROPPED
    return (method.name in _ELSEWHERE and not dropped) or (name, method.name) in _ADDED
