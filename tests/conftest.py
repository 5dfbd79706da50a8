"""Fixtures and settings that all tests share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings

from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity.panels import Float32Panel, Operand, Panel, PanelKind
from collapse_audit.similarity.row_sources import RowSource

# CI draws the same examples in every run; at a desk each run draws new ones. A test machine that
# is busy must not fail a test, so neither profile has a deadline.
settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("dev", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))

Rows: TypeAlias = npt.NDArray[np.float64]


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


# ---------------------------------------------------------------------------------------- panels


class WorstPanel(Float32Panel):
    """A panel as wrong as its bound allows: every call errs anew, often by all of the bound.

    What is decided with it must still be exact, so it finds a certificate that is a little off
    where a good arithmetic hides it.
    """

    def __init__(self, source: RowSource) -> None:
        super().__init__(source)
        self._rng = np.random.default_rng(source.shape)
        self._noise = 0.02
        self.error += self._noise

    def tile(self, rows: Operand, columns: Operand) -> npt.NDArray[np.float32]:
        scores = super().tile(rows, columns)
        signs = self._rng.integers(-1, 2, size=scores.shape, dtype=np.int8)
        scores += np.float32(self._noise * (1 - 1e-5)) * signs
        return scores


def from_torch(name: str) -> PanelKind:
    """A panel of the torch module, which is imported when it is used."""

    def make(source: RowSource) -> Panel:
        from collapse_audit.similarity import integer_panel, torch_panel

        class ScreenedPanel(torch_panel.BFloat16Panel):
            """Rows in bf16, and whole numbers for the screens on every processor."""

            def coarser(self) -> type[Panel]:
                return integer_panel.Int8Panel

        kinds: dict[str, PanelKind] = {
            "bfloat16": torch_panel.BFloat16Panel,
            "float32": torch_panel.TorchFloat32Panel,
            "int8": integer_panel.Int8Panel,
            "screened": ScreenedPanel,
        }
        return kinds[name](source)

    return make


def on_device(source: RowSource) -> Panel:
    """The CUDA panel's code on CPU tensors, in blocks small enough to be several."""
    from collapse_audit.similarity.device_panel import DevicePanel

    panel = DevicePanel(source, "cpu")
    panel.block_rows, panel.scan_rows, panel.chunk_rows = 600, 250, 400
    return panel


# Every arithmetic that the engine can run in, by name: a test that takes `panel` runs once in each.
PANELS: dict[str, PanelKind] = {
    "numpy": Float32Panel,
    "worst": WorstPanel,
    "bfloat16": from_torch("bfloat16"),
    "float32": from_torch("float32"),
    "int8": from_torch("int8"),
    "screened": from_torch("screened"),
    "device": on_device,
}
# The same products in another library take the part of the tests that could tell them apart.
_FEW = {"float32", "bfloat16", "device"}


@pytest.fixture(scope="session", params=[name for name in PANELS if name not in _FEW])
def panel(request: pytest.FixtureRequest) -> PanelKind:
    """Kind of panel to compare with: each arithmetic."""
    return PANELS[request.param]


@pytest.fixture(scope="session")
def panels() -> dict[str, PanelKind]:
    """All of them, for tests that compare one with another."""
    return PANELS


# ------------------------------------------------------------------------------------ definition


class Definition:
    """What the engine must find, in plain loops, float64 and fractions; it shares no code with it.

    Attributes:
        rows: The stored values (k x d), float64.
        epsilon: Cosine distance below which two rows are duplicates.
    """

    def __init__(self, weight: Any, epsilon: float) -> None:
        values = weight.double().numpy() if hasattr(weight, "double") else weight
        self.rows: Rows = np.asarray(values, dtype=np.float64)
        self.epsilon = epsilon
        self._decided: dict[tuple[bytes, bytes], bool] = {}
        self._elsewhere = {epsilon: self}

    def at(self, epsilon: float) -> Definition:
        """The same rows at another threshold."""
        if epsilon not in self._elsewhere:
            self._elsewhere[epsilon] = Definition(self.rows, epsilon)
        return self._elsewhere[epsilon]

    @cached_property
    def unit(self) -> Rows:
        """Directions; the largest entry is brought to one first, so that no square overflows."""
        rows = self.rows / np.abs(self.rows).max(axis=1, keepdims=True)
        return np.asarray(rows / np.sqrt((rows**2).sum(axis=1, keepdims=True)))

    @cached_property
    def duplicates(self) -> npt.NDArray[np.bool_]:
        """1 - cos < epsilon, strictly, for every pair (k x k); false on the diagonal."""
        cosine = self.unit @ self.unit.T
        close = np.asarray(cosine > 1 - self.epsilon)
        for i, j in np.argwhere(np.triu(np.abs(cosine - (1 - self.epsilon)) < 1e-11, 1)):
            close[i, j] = close[j, i] = self._exactly(i, j)
        np.fill_diagonal(close, val=False)
        return close

    def _exactly(self, i: int, j: int) -> bool:
        key = (self.rows[i].tobytes(), self.rows[j].tobytes())
        if key not in self._decided:
            x = [Fraction(float(v)) for v in self.rows[i]]
            y = [Fraction(float(v)) for v in self.rows[j]]
            dot = sum((a * b for a, b in zip(x, y, strict=True)), Fraction(0))
            squares = sum(a * a for a in x) * sum(b * b for b in y)
            limit = 1 - Fraction(Decimal(str(self.epsilon)))
            self._decided[key] = dot > 0 and dot**2 > limit**2 * squares
        return self._decided[key]

    def greedy(self, order: npt.NDArray[np.intp] | None = None) -> tuple[list[int], list[int]]:
        """Leaders in scan order, and each row's place among them (-1 if it was not scanned)."""
        leaders: list[int] = []
        group = [-1] * len(self.rows)
        for row in range(len(self.rows)) if order is None else order.tolist():
            for place, leader in enumerate(leaders):
                if self.duplicates[row, leader]:
                    group[row] = place
                    break
            else:
                group[row] = len(leaders)
                leaders.append(row)
        return leaders, group

    @cached_property
    def component(self) -> list[int]:
        """Connected component of each row, named by the smallest index in it."""
        name = [-1] * len(self.rows)
        for start in range(len(name)):
            if name[start] != -1:
                continue
            name[start], todo = start, [start]
            while todo:
                for other in np.flatnonzero(self.duplicates[todo.pop()]).tolist():
                    if name[other] == -1:
                        name[other] = start
                        todo.append(other)
        return name

    @property
    def components(self) -> int:
        """Number of connected components."""
        return len(set(self.component))

    @property
    def neighbours(self) -> list[int]:
        """Other rows within epsilon, for each row."""
        return [int(row.sum()) for row in self.duplicates]

    @property
    def isolated(self) -> int:
        """Rows with no other row within epsilon."""
        return self.neighbours.count(0)

    def cliques(self) -> list[bool]:
        """Whether all members of each group are within epsilon of each other."""
        leaders, group = self.greedy()
        members = [np.flatnonzero(np.array(group) == g) for g in range(len(leaders))]
        return [all(self.duplicates[i, j] for i in m for j in m if i != j) for m in members]

    def squared_chords(self, row: int) -> Rows:
        """|u_row - u_j|^2 for every other row j; infinite for the row itself."""
        squared = np.asarray(((self.unit - self.unit[row]) ** 2).sum(axis=1))
        squared[row] = np.inf
        return squared


@pytest.fixture(scope="session")
def definition() -> type[Definition]:
    """The definitions, to compare results with."""
    return Definition


# ------------------------------------------------------------------------------------------ heads


@dataclass(frozen=True)
class Head:
    """A weight matrix to audit, and the threshold at which it is interesting."""

    weight: Any
    epsilon: float

    @cached_property
    def prototypes(self) -> Prototypes:
        return Prototypes.from_weight(self.weight)

    @cached_property
    def truth(self) -> Definition:
        return Definition(self.weight, self.epsilon)


HEADS: dict[str, Callable[[], Head]] = {}


def head(name: str) -> Callable[[Callable[[], Head]], Callable[[], Head]]:
    def register(build: Callable[[], Head]) -> Callable[[], Head]:
        HEADS[name] = cache(build)
        return build

    return register


def random_unit(rng: np.random.Generator, k: int, d: int) -> Rows:
    rows = rng.standard_normal((k, d))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def noisy(rng: np.random.Generator, rows: Rows, sigma: float) -> Rows:
    """Rows with an angular noise of about sigma radians."""
    return np.asarray(rows + sigma * random_unit(rng, *rows.shape))


def collapsed(rng: np.random.Generator, k: int, d: int, m: int, sigma: float = 0.02) -> Rows:
    """M directions repeated in power-law groups, in random order."""
    weights = 1.0 / np.arange(1, m + 1)
    labels = np.concatenate([np.arange(m), rng.choice(m, k - m, p=weights / weights.sum())])
    return noisy(rng, random_unit(rng, m, d)[rng.permutation(labels)], sigma)


def at_distance(rng: np.random.Generator, hub: Rows, distances: npt.NDArray[np.float64]) -> Rows:
    """Unit rows at given cosine distances from a unit row."""
    aside = rng.standard_normal((len(distances), len(hub)))
    aside -= np.outer(aside @ hub, hub)
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    cosine = 1 - distances[:, None]
    return np.asarray(cosine * hub + np.sqrt(1 - cosine**2) * aside)


def chain(d: int, steps: int, step: float) -> Rows:
    """Points on a great circle, each at the same angle from the one before."""
    rows = np.zeros((steps, d))
    rows[:, 0], rows[:, 1] = np.cos(step * np.arange(steps)), np.sin(step * np.arange(steps))
    return rows


def star_shells(jitter: float, dtype: type = np.float64) -> Head:
    """Hubs whose spokes sit at the threshold, as far to both sides as the jitter says."""
    rng, epsilon, parts = np.random.default_rng(1), 0.025, []
    for hub in random_unit(rng, 6, 64):
        sides = rng.choice([-1.0, 1.0], 30)
        parts += [hub[None], at_distance(rng, hub, epsilon * (1 + jitter * sides))]
    return Head(rng.permutation(np.concatenate(parts)).astype(dtype), epsilon)


def at_dimension(d: int) -> Head:
    """Half collapsed, half random, in a dimension."""
    rng, k = np.random.default_rng(d), 60 if d > 1000 else 160
    half = collapsed(rng, k // 2, d, 8, 0.15)
    rows = rng.permutation(np.concatenate([half, random_unit(rng, k // 2, d)]))
    return Head(rows.astype(np.float32), 0.025)


def in_type(name: str) -> Head:
    """Wide groups, stored in a type that rounds their distances."""
    import torch

    rows = torch.from_numpy(collapsed(np.random.default_rng(5), 240, 32, 6, 0.16))
    return Head(rows.to(getattr(torch, name)), 0.025)


def signs(epsilon: float) -> Head:
    """+-1 rows of 16 entries: cosines are multiples of 1/8, many of them exactly 1 - epsilon."""
    rng = np.random.default_rng(int(1000 * epsilon))
    rows = np.where(rng.random((5, 1, 16)) < 0.5, -1.0, 1.0)
    flips = np.where(rng.random((5, 60, 16)) < epsilon / 2, -1.0, 1.0)
    return Head((rows * flips).reshape(-1, 16).astype(np.float32), epsilon)


def scaled(factors: npt.NDArray[np.float64], dtype: type) -> Head:
    """Groups whose rows have very different norms."""
    rng = np.random.default_rng(8)
    rows = collapsed(rng, len(factors), 16, 9, 0.1) * factors[:, None]
    return Head(rows.astype(dtype), 0.025)


def _register_heads() -> None:
    rng = np.random.default_rng
    plain: dict[str, Callable[[], tuple[Rows, float]]] = {
        "collapsed": lambda: (collapsed(rng(0), 400, 64, 20), 0.025),
        "healthy": lambda: (random_unit(rng(1), 300, 64), 0.025),
        "healthy, linked": lambda: (random_unit(rng(2), 300, 16), 0.4),
        "chained": lambda: (rng(3).permutation(chain(8, 250, 0.9 * np.arccos(0.975))), 0.025),
        "chain in order": lambda: (chain(8, 250, 0.9 * np.arccos(0.975)), 0.025),
        "chain of pairs": lambda: (chain(4, 300, 0.02), 0.0003),
        "wide groups": lambda: (collapsed(rng(4), 350, 64, 5, 0.16), 0.025),
        "wide groups near by": lambda: (
            noisy(rng(5), noisy(rng(6), np.ones((40, 32)) / 32**0.5, 0.25).repeat(9, axis=0), 0.12),
            0.025,
        ),
        "cone 0.5": lambda: (random_unit(rng(7), 300, 64) + np.eye(64)[0], 0.4),
        "cone 0.8": lambda: (random_unit(rng(8), 300, 64) + 2 * np.eye(64)[0], 0.18),
        "half collapsed": lambda: (
            np.concatenate([collapsed(rng(9), 150, 48, 4), random_unit(rng(10), 150, 48)]),
            0.025,
        ),
        "antipodal": lambda: (np.concatenate([(r := random_unit(rng(11), 60, 8)), -r]), 0.1),
        "one axis": lambda: (np.outer(rng(12).choice([-1.0, 1.0], 50), np.arange(1.0, 6)), 0.1),
        "identical": lambda: (np.tile(rng(13).standard_normal(24), (80, 1)), 0.025),
        "identical, tiny epsilon": lambda: (np.tile(rng(13).standard_normal(24), (30, 1)), 1e-15),
        "two copies": lambda: (np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]]), 0.025),
        "two opposite": lambda: (np.array([[1.0, 2.0], [-1.0, -2.0]]), 0.5),
        "two at 0.4": lambda: (np.array([[1.0, 0.0], [3.0, 4.0]]), 0.4),
        "two at 0.2": lambda: (np.array([[1.0, 0.0], [4.0, 3.0]]), 0.2),
        "one dimension": lambda: (rng(14).standard_normal((40, 1)), 0.025),
        "plane": lambda: (random_unit(rng(15), 200, 2), 0.0002),
        "almost everything": lambda: (random_unit(rng(16), 80, 4), 0.999999),
        "small epsilon": lambda: (collapsed(rng(17), 200, 16, 6, 1e-5), 1e-10),
        "smallest epsilon": lambda: (collapsed(rng(18), 60, 16, 6, 3e-8), 1e-15),
    }
    for name, build in plain.items():
        head(name)(lambda build=build: Head(*build()))
    for jitter in (1e-3, 1e-6, 1e-9, 1e-12):
        head(f"star shells {jitter}")(lambda jitter=jitter: star_shells(jitter))
    head("star shells in float32")(lambda: star_shells(1e-7, np.float32))
    for d in (2, 16, 64, 256, 1024, 4096):
        head(f"d = {d}")(lambda d=d: at_dimension(d))
    for name in ("float16", "bfloat16", "float32", "float64"):
        head(f"stored as {name}")(lambda name=name: in_type(name))
    for epsilon in (0.125, 0.25, 0.5):
        head(f"signs at {epsilon}")(lambda epsilon=epsilon: signs(epsilon))
    powers = 2.0 ** rng(19).integers(-60, 60, 200)
    head("scaled by powers of two")(lambda: scaled(powers, np.float32))
    factors = 10.0 ** rng(20).uniform(-20, 20, 200)
    head("norms 1e-20 to 1e20")(lambda: scaled(factors, np.float32))
    head("norms 1e-300 to 1e300")(lambda: scaled(factors**15, np.float64))
    head("float32 denormals")(lambda: scaled(np.full(200, 3e-43), np.float32))
    head("float64 denormals")(lambda: scaled(np.full(200, 1e-321), np.float64))


_register_heads()


@pytest.fixture(scope="session", params=list(HEADS))
def any_head(request: pytest.FixtureRequest) -> Head:
    """Each of the kinds of head, small enough for the definition in plain loops."""
    return HEADS[request.param]()


@pytest.fixture(scope="session")
def make_head() -> Callable[[str], Head]:
    """One kind of head by its name."""
    return lambda name: HEADS[name]()


class Kinds:
    """Generators of rows for tests that need their own sizes."""

    collapsed = staticmethod(collapsed)
    random_unit = staticmethod(random_unit)
    at_distance = staticmethod(at_distance)
    noisy = staticmethod(noisy)
    chain = staticmethod(chain)


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
