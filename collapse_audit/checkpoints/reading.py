"""Bytes of a file -> the tensors it holds, without executing anything and without reading them."""

from __future__ import annotations

from pathlib import Path

from collapse_audit.checkpoints.containers import sniff
from collapse_audit.checkpoints.numpy_files import read_npz_file, read_numpy_file
from collapse_audit.checkpoints.safetensors_files import read_safetensors_file
from collapse_audit.checkpoints.tensors import Checkpoint
from collapse_audit.checkpoints.torch_files import read_torch_file


def read_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint.

    Args:
        path: An existing file of torch.save (zip or legacy), safetensors, ``.npy`` or ``.npz``.

    Returns:
        Its tensors, each read when asked for (a legacy file is read as a whole).

    Raises:
        SourceError: If the file cannot be opened.
        CheckpointError: If it is damaged or no checkpoint.
        UnsafePickleError: If its pickle names an object outside the allow-list.
    """
    container = sniff(path)
    if container == "safetensors":
        return read_safetensors_file(path)
    if container == "npy":
        return read_numpy_file(path)
    if container == "npz":
        return read_npz_file(path)
    return read_torch_file(path, container)
