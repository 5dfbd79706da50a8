"""Runs with planted collapse, and a count of what is read of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from collapse_audit.containers.byte_source import LocalFile

K, D = 64, 16
KEY = "head.last_layer.weight"


def rows_with(unique: int, k: int = K) -> np.ndarray:
    """K rows of so many directions; the last ones repeat the first one."""
    rows = np.random.default_rng(0).standard_normal((k, D)).astype(np.float32)
    rows[unique:] = rows[0]
    return rows


def write(path: Path, unique: int, k: int = K) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({KEY: rows_with(unique, k)}, path)
    return path


Plant = Callable[..., Path]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Write a run: one checkpoint for each number of unique prototypes."""

    def make(counts: list[int], name: str = "checkpoint{:04d}.safetensors", **more: Any) -> Path:
        folder = tmp_path / more.pop("folder", "run")
        for number, unique in enumerate(counts):
            write(folder / name.format(number), unique, **more)
        return folder

    return make


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAPSE_AUDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of bytes of every read of a checkpoint on this machine."""
    counted: list[int] = []
    read = LocalFile.read

    def counting(self: LocalFile, start: int, n: int) -> bytes:
        counted.append(n)
        return read(self, start, n)

    monkeypatch.setattr(LocalFile, "read", counting)
    return counted


def parsed(text: str) -> dict[str, Any]:
    return dict(json.loads(text))
