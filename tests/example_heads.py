"""Kinds of head to audit, each small enough for the definition in plain loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from collapse_audit.prototypes import Prototypes
from tests.plain_definition import Definition, Rows


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


class Kinds:
    """Generators of rows for tests that need their own sizes."""

    collapsed = staticmethod(collapsed)
    random_unit = staticmethod(random_unit)
    at_distance = staticmethod(at_distance)
    noisy = staticmethod(noisy)
    chain = staticmethod(chain)
