"""What is measured where by default: all that a target or a reader needs, and no more."""

from __future__ import annotations

from benchmarks.inputs import INPUTS
from benchmarks.methods import Method

_PLAIN = ("collapsed", "healthy")
_SMALL = 16384
_LARGE = 65536
_HUGE = 262_144
_D = 256
# On the other inputs the peers cost what they do on the plain ones.
_ELSEWHERE = frozenset(
    {"audit-auto", "audit-float32", "sweep-auto", "nearest-auto", "product", "faiss-range"}
    | {"whole-auto", "whole-float32", "triangle"}
)
# Beyond the size or dimension of the targets, the growth of our own tasks beside a product.
_GROWTH = frozenset({"audit-auto", "sweep-auto", "nearest-auto", "whole-auto", "product"})
_ONE_PASS = frozenset({"audit-auto", "product"})
# DBSCAN spends its time in the same search.
_ONLY_SMALL = frozenset({"sklearn-radius"})
# The target of the worst case is a multiple of this one.
_ADDED = frozenset({("near-threshold", "torch-threshold")})
# Every level is a worst case of its own: half a minute, and no other package to compare with.
_DROPPED = frozenset({("near-threshold", "sweep-auto")})


def inputs(k: int, d: int) -> tuple[str, ...]:
    """The inputs that are measured at a size unless others are asked for."""
    if d != _D and k > _LARGE:
        return ()
    return tuple(INPUTS) if d == _D and _SMALL < k <= _LARGE else _PLAIN


def planned(method: Method, name: str, k: int, d: int) -> bool:
    """Whether a method is measured on an input of a size unless all are asked for."""
    if k > _LARGE:
        return method.name in (_ONE_PASS if k > _HUGE else _GROWTH)
    if d != _D:
        return method.name in _GROWTH
    if name in _PLAIN:
        return k <= _SMALL or method.name not in _ONLY_SMALL
    dropped = k > _SMALL and (name, method.name) in _DROPPED
    return (method.name in _ELSEWHERE and not dropped) or (name, method.name) in _ADDED
