"""The manifest: which public checkpoints hold prototypes, where, and what others counted there.

YAML -> entries; every error names row and field. Nothing here imports torch.
"""

from collapse_audit.manifest.entries import (
    CheckpointEntry,
    Manifest,
    PublishedCount,
    candidate_file_names,
    fetch_hint,
)
from collapse_audit.manifest.reading import COMMANDS, load_manifest
from collapse_audit.manifest.recipes import Recipe

__all__ = [
    "COMMANDS",
    "CheckpointEntry",
    "Manifest",
    "PublishedCount",
    "Recipe",
    "candidate_file_names",
    "fetch_hint",
    "load_manifest",
]
