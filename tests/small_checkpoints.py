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

K, D = 12, 8
WEIGHT = torch.randn(K, D, generator=torch.Generator().manual_seed(0))
SCALE = torch.linspace(0.5, 2, K)[:, None]


def save_torch(path: Path, tree: Any, *, is_zip: bool = True) -> None:
    torch.save(tree, path, _use_new_zipfile_serialization=is_zip)


def head(weight: torch.Tensor = WEIGHT, scale: torch.Tensor = SCALE) -> dict[str, Any]:
    return {"head.last_layer.weight_g": scale, "head.last_layer.weight_v": weight}


def rewrite_zip(path: Path, change: Callable[[str, bytes], bytes], **options: Any) -> None:
    """The same archive with other contents, as a hostile tool would write it."""
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, change(name, content))


both = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])


def _good_files() -> dict[str, bytes]:
    """One small file per container."""
    files = {}
    tree = {"teacher": head(), "epoch": 3, "args": argparse.Namespace(lr=np.float64(0.1))}
    for name, is_zip in (("zip", True), ("legacy", False)):
        buffer = io.BytesIO()
        torch.save(tree, buffer, _use_new_zipfile_serialization=is_zip)
        files[name] = buffer.getvalue()
    header = json.dumps(
        {
            "last_layer.weight_v": {
                "dtype": "F32",
                "shape": [K, D],
                "data_offsets": [0, 4 * K * D],
            },
            "last_layer.weight_g": {
                "dtype": "F32",
                "shape": [K, 1],
                "data_offsets": [4 * K * D, 4 * K * D + 4 * K],
            },
        }
    ).encode()
    data = WEIGHT.numpy().tobytes() + SCALE.numpy().tobytes()
    files["safetensors"] = struct.pack("<Q", len(header)) + header + data
    for name, save in (("npy", np.save), ("npz", np.savez), ("packed", np.savez_compressed)):
        buffer = io.BytesIO()
        save(buffer, WEIGHT.numpy())
        files[name] = buffer.getvalue()
    return files


GOOD_FILES = _good_files()
