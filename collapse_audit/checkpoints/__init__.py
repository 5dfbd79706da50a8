"""Checkpoints: named tensors -> heads found by structure -> Prototypes."""

from collapse_audit.checkpoints.description import CheckpointDescription, describe
from collapse_audit.checkpoints.families import guess_family
from collapse_audit.checkpoints.loading import load_located
from collapse_audit.checkpoints.roles import is_patch_level
from collapse_audit.checkpoints.selection import select_default, select_heads
from collapse_audit.checkpoints.structure import HeadLocation, discover_heads

__all__ = [
    "CheckpointDescription",
    "HeadLocation",
    "describe",
    "discover_heads",
    "guess_family",
    "is_patch_level",
    "load_located",
    "select_default",
    "select_heads",
]
