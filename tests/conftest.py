"""Fixtures and settings that all tests share."""

from __future__ import annotations

import gc
import importlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.similarity.products.choice import PanelPair
from tests.engine_panels import IN_EVERY_TEST, PANELS
from tests.example_heads import HEADS, Head, Kinds
from tests.loopback_server import Clock, LoopbackServer, remote_settings
from tests.plain_definition import Definition

# CI draws the same examples in every run; at a desk each run draws new ones, and few in the quick
# tier. A test machine that is busy must not fail a test, so no profile has a deadline.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.register_profile("quick", max_examples=10, deadline=None)
QUICK_TESTS_OF_A_FILE = 5

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


@pytest.hookimpl(tryfirst=True)  # before -m chooses, and before pytest-randomly shuffles
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the quick tier: of every file some tests that are not slow, each in its first case."""
    files: dict[Path, dict[str, pytest.Item]] = {}
    for item in sorted(items, key=lambda item: (item.path, item.location[1] or 0)):
        if item.get_closest_marker("slow") is None:
            name = item.originalname if isinstance(item, pytest.Function) else item.name
            files.setdefault(item.path, {}).setdefault(name, item)
    for tests in files.values():
        step = -(-len(tests) // QUICK_TESTS_OF_A_FILE)
        for item in list(tests.values())[::step]:
            item.add_marker("quick")


def pytest_collection_finish() -> None:
    """What the imports made stays: looking through it for garbage costs half a second each time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """At the end it goes as usual."""
    gc.unfreeze()


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


@pytest.fixture(scope="session")
def shared_field(repository: Path) -> Path:
    """Files rebuilt from public reports of people who do this work, beside the repository too."""
    folder = repository.parent / "shared" / "field"
    if not (folder / "truth.json").is_file():
        pytest.skip("no field files beside the repository")
    return folder


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    """A web server on the loopback address; see tests/loopback_server.py."""
    running = LoopbackServer()
    yield running
    running.close()


@pytest.fixture(name="settings")
def _remote_settings(tmp_path: Path) -> RemoteSettings:
    return remote_settings(tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the limit of time is measured with."""
    clock = Clock()
    monkeypatch.setattr("collapse_audit.remote.remote_files.time", clock)
    return clock


@pytest.fixture
def report(repository: Path) -> dict[str, Any]:
    """A made-up report of two heads, one with everything and one with the least."""
    text = (repository / "tests" / "data" / "report.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


@pytest.fixture(scope="session")
def genuine_files() -> ModuleType:
    """Builders of checkpoints in the original layout; see tests/genuine_files.py."""
    return importlib.import_module("tests.genuine_files")  # which imports torch


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


@pytest.fixture(scope="session", params=IN_EVERY_TEST)
def panels(request: pytest.FixtureRequest) -> PanelPair:
    """Panels to compare with: each arithmetic."""
    return PANELS[request.param]


@pytest.fixture(scope="session")
def all_panels() -> dict[str, PanelPair]:
    """All of them, for tests that compare one with another."""
    return PANELS


@pytest.fixture(scope="session")
def definition() -> type[Definition]:
    """The definitions, to compare results with."""
    return Definition


@pytest.fixture(scope="session", params=list(HEADS))
def any_head(request: pytest.FixtureRequest) -> Head:
    """Each of the kinds of head, small enough for the definition in plain loops."""
    return HEADS[request.param]()


@pytest.fixture(scope="session")
def make_head() -> Callable[[str], Head]:
    """One kind of head by its name."""
    return lambda name: HEADS[name]()


@pytest.fixture(scope="session")
def kinds() -> type[Kinds]:
    """Generators of rows."""
    return Kinds


@pytest.fixture(scope="session")
def clear_epsilon() -> Callable[[Any, float], float]:
    """A threshold near a given one from which every pair keeps away, for inexact oracles."""

    def choose(weight: Any, epsilon: float) -> float:
        unit = Definition(weight, epsilon).unit
        distance = 1 - (unit @ unit.T)[np.triu_indices(len(unit), 1)]
        near = distance[np.abs(distance / epsilon - 1) < 0.2]
        near = np.sort(np.concatenate([near, [0.8 * epsilon, 1.2 * epsilon]]))
        gap = int(np.diff(near).argmax())
        assert near[gap + 1] - near[gap] > 1e-5 * epsilon
        return float((near[gap] + near[gap + 1]) / 2)

    return choose


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets how many threads BLAS, OpenMP and torch use; all is as before after the test."""
    import torch
    from threadpoolctl import threadpool_limits

    before, limits = torch.get_num_threads(), []

    def set_threads(count: int) -> None:
        limits.append(threadpool_limits(count))
        torch.set_num_threads(count)

    yield set_threads
    for limit in reversed(limits):
        limit.restore_original_limits()
    torch.set_num_threads(before)
