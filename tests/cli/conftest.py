"""Fixtures of the tests of the command line as a whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from collapse_audit.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, with no setting of the outside visible."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "COLLAPSE_AUDIT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLLAPSE_AUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def head(folder: Path) -> str:
    """Five directions, repeated 5, 4, 3, 2 and 1 times: K = 15, M = 5."""
    directions = np.eye(5, 8, dtype=np.float32)
    np.save(folder / "head.npy", np.repeat(directions, [5, 4, 3, 2, 1], axis=0))
    return "head.npy"


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process: exit code, stdout, stderr."""
    assert folder.is_dir()

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
