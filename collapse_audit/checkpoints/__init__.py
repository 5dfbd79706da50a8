"""Checkpoints: named tensors -> heads found by structure -> Prototypes."""

from collapse_audit.checkpoints.description import describe
from collapse_audit.checkpoints.families import guess_family
from collapse_audit.checkpoints.loading import load_located
from collapse_audit.checkpoints.selection import select_default, select_heads
from collapse_audit.checkpoints.structure import HeadLocation, discover_heads

__all__ = [
    "HeadLocation",
    "describe",
    "discover_heads",
    "guess_family",
    "load_located",
    "select_default",
    "select_heads",
]
