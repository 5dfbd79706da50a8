"""Fixtures and settings that all tests share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

# CI draws the same examples in every run; at a desk each run draws new ones. A test machine that
# is busy must not fail a test, so neither profile has a deadline.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reaches the internet by naming a checkpoint, and none sees the user's cache."""
    monkeypatch.setenv("COLLAPSE_AUDIT_OFFLINE", "1")
    if "COLLAPSE_AUDIT_CACHE" not in os.environ:
        folder = tmp_path_factory.getbasetemp() / "cache"
        monkeypatch.setenv("COLLAPSE_AUDIT_CACHE", str(folder))


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_checkpoints(repository: Path) -> Path:
    """Checkpoint files in the original formats; they are kept beside the repository."""
    folder = repository.parent / "shared" / "checkpoints"
    if not (folder / "truth.json").is_file():
        pytest.skip("no genuine-format checkpoints beside the repository")
    return folder


def _helper(name: str) -> ModuleType:
    """A module of this folder; tests are imported one by one and cannot import each other."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server() -> Iterator[Any]:
    """A web server on the loopback address; see tests/loopback_server.py."""
    running = _helper("loopback_server").LoopbackServer()
    yield running
    running.close()


@pytest.fixture(scope="session")
def genuine_files() -> ModuleType:
    """Builders of checkpoints in the original layout; see tests/genuine_files.py."""
    return _helper("genuine_files")


@pytest.fixture(scope="session")
def small_dino(genuine_files: ModuleType) -> bytes:
    """A full DINO checkpoint of 0.1 MB with 20 unique prototypes in the teacher."""
    return bytes(genuine_files.dino_checkpoint())


@pytest.fixture(scope="session")
def large_dino(genuine_files: ModuleType) -> bytes:
    """One of some 60 MB, 8.4 MB of which are the teacher's prototypes, 200 of them unique."""
    return bytes(genuine_files.dino_checkpoint(8192, 256, teacher_unique=200, width=512, blocks=6))


@pytest.fixture(scope="session")
def legacy_dino(genuine_files: ModuleType) -> bytes:
    """A full DINO checkpoint in the container of torch before 1.6."""
    return bytes(genuine_files.dino_checkpoint(2048, 128, _use_new_zipfile_serialization=False))
