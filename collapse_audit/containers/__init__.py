"""Containers: bytes -> named tensors, the same for a file here, a shard, and an address.

Nothing that a file names is ever executed or imported, torch is not needed, and of any file only
its index and the tensors asked for are read.
"""

from collapse_audit.containers.byte_source import ByteSource, InMemory, LocalFile
from collapse_audit.containers.opening import is_checkpoint_folder, read_checkpoint, read_path
from collapse_audit.containers.tensors import FLOATING, Checkpoint, StoredTensor, Values

__all__ = [
    "FLOATING",
    "ByteSource",
    "Checkpoint",
    "InMemory",
    "LocalFile",
    "StoredTensor",
    "Values",
    "is_checkpoint_folder",
    "read_checkpoint",
    "read_path",
]
