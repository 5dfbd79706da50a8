"""Small checkpoints in every container, whole or changed by hand."""

from __future__ import annotations

import argparse
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collapse_audit.checkpoints.locations import HeadLocation
from collapse_audit.containers.opening import read_checkpoint
from collapse_audit.containers.tensors import Checkpoint, StoredTensor
from collapse_audit.errors import SourceError
from collapse_audit.sources import resolve_source

K, D = 12, 8
WEIGHT = torch.randn(K, D, generator=torch.Generator().manual_seed(0))
SCALE = torch.linspace(0.5, 2, K)[:, None]


class MemorySource:
    """Bytes in memory as a source of bytes, which counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size, self.bytes_read = data, len(data), 0

    def read(self, start: int, n: int) -> bytes:
        if not 0 <= start <= start + n <= self.size:
            raise SourceError(f"{n} bytes from {start} on of {self.size}")
        self.bytes_read += n
        return self.data[start : start + n]


def read_bytes(data: bytes) -> Checkpoint:
    """The checkpoint that some bytes are."""
    return read_checkpoint(MemorySource(data), "checkpoint")


def read_every_tensor(checkpoint: Checkpoint) -> dict[str, Any]:
    return {key: tensor.read() for key, tensor in checkpoint.tensors.items()}


def saved(tree: Any, *, is_zip: bool = True) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(tree, buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()


def save_torch(path: Path, tree: Any, *, is_zip: bool = True) -> None:
    torch.save(tree, path, _use_new_zipfile_serialization=is_zip)


def heads_of(tree: Any, folder: Path) -> tuple[HeadLocation, ...]:
    """The heads that are found in a saved tree."""
    torch.save(tree, folder / "checkpoint.pth")
    return resolve_source(folder / "checkpoint.pth").heads


def layer(module: str, seed: int, k: int = 6) -> dict[str, torch.Tensor]:
    """One prototype layer, random."""
    generator = torch.Generator().manual_seed(seed)
    return {f"{module}.last_layer.weight": torch.randn(k, 4, generator=generator)}


def head(weight: torch.Tensor = WEIGHT, scale: torch.Tensor = SCALE) -> dict[str, Any]:
    return {"head.last_layer.weight_g": scale, "head.last_layer.weight_v": weight}


def rezipped(
    archive: bytes,
    change: Callable[[str, bytes], bytes] = lambda _, content: content,
    **options: Any,
) -> bytes:
    """The same archive with other contents, as a hostile tool would write it."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        return zip_of(
            {info: change(info, source.read(info)) for info in source.namelist()}, **options
        )


def zip_of(members: dict[str, bytes], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def safetensors_of(header: Any, data: bytes = b"") -> bytes:
    """A file with a header that may say anything."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


both = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])


def _good_files() -> dict[str, bytes]:
    """One small file per container."""
    tree = {"teacher": head(), "epoch": 3, "args": argparse.Namespace(lr=np.float64(0.1))}
    files = {"zip": saved(tree), "legacy": saved(tree, is_zip=False)}
    files["deflated zip"] = rezipped(files["zip"], compression=zipfile.ZIP_DEFLATED)
    header = {
        "last_layer.weight_v": {"dtype": "F32", "shape": [K, D], "data_offsets": [0, 4 * K * D]},
        "last_layer.weight_g": {
            "dtype": "F32",
            "shape": [K, 1],
            "data_offsets": [4 * K * D, 4 * K * D + 4 * K],
        },
    }
    data = WEIGHT.numpy().tobytes() + SCALE.numpy().tobytes()
    files["safetensors"] = safetensors_of(header, data)
    for name, save in (("npy", np.save), ("npz", np.savez), ("packed", np.savez_compressed)):
        buffer = io.BytesIO()
        save(buffer, WEIGHT.numpy())
        files[name] = buffer.getvalue()
    return files


GOOD_FILES = _good_files()


def checkpoint_of(
    shapes: dict[str, tuple[int, ...]], *, container: Any = "zip", dtype: str = "float32"
) -> Checkpoint:
    """Tensors of some shapes by their keys, ``/`` between dictionaries; none can be read."""

    def read() -> Any:
        pytest.fail("values were read")

    tensors = {
        key: StoredTensor(tuple(key.split("/")), shape, dtype, key, read)
        for key, shape in shapes.items()
    }
    top = tuple(dict.fromkeys(tensor.path[0] for tensor in tensors.values()))
    return Checkpoint("checkpoint", container, 0, tensors, top)
