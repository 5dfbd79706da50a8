"""The manifest: which public checkpoints hold prototypes, where, and what others counted there.

YAML -> entries; every error names row and field. Nothing here imports torch.
"""

from collapse_audit.manifest.entries import CheckpointEntry
from collapse_audit.manifest.reading import load_manifest

__all__ = ["CheckpointEntry", "load_manifest"]
