"""Fixtures that several test files use."""

from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "checkpoints"


@pytest.fixture(scope="session")
def shared_checkpoints() -> Path:
    """Files written by the official repositories' own code, kept beside the repository."""
    if not (_SHARED / "truth.json").exists():
        pytest.skip(f"no genuine-format checkpoints in {_SHARED.name} beside the repository")
    return _SHARED
