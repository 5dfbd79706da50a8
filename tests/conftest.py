"""Fixtures and settings that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# CI draws the same examples in every run; at a desk each run draws new ones. A test machine that
# is busy must not fail a test, so neither profile has a deadline.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


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
