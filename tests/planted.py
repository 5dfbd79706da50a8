"""Heads with planted redundancy, and what an audit of a file with them must say.

Each head of a file has its own number of unique prototypes M, and K = 2 M where nothing else is
said, so that a count tells which tensor was taken and which way it lay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

D = 24
State = dict[str, Any]


@dataclass(frozen=True)
class Head:
    """One head that must be reported.

    Attributes:
        key: What its tensor key contains, written with dots only.
        m: Its unique prototypes.
        k: Its prototypes.
        d: Their dimension.
    """

    key: str
    m: int
    k: int = 0
    d: int = D

    @property
    def shape(self) -> tuple[int, int]:
        return self.k or 2 * self.m, self.d


@dataclass(frozen=True)
class Layout:
    """One kind of file, and every answer to it that is right.

    Attributes:
        source: Where people have such files from.
        write: Makes the file in a folder and returns the path to audit.
        heads: All heads of the branch that is audited when nothing is asked for.
        refusal: What an error must say; with ``heads``, an answer that is right too.
        note: What must be said beside the counts.
    """

    source: str
    write: Callable[[Path], Path]
    heads: tuple[Head, ...] = ()
    refusal: str = ""
    note: str = ""


def rows(m: int, k: int = 0, d: int = D) -> torch.Tensor:
    """K rows of M directions that are far apart; copies are turned a little and of other norms."""
    return _rows(m, k, d).clone()


@cache
def _rows(m: int, k: int, d: int) -> torch.Tensor:
    rng = np.random.default_rng([m, k, d])
    directions: list[np.ndarray] = []
    while len(directions) < m:
        new = rng.standard_normal(d)
        new /= np.linalg.norm(new)
        if all(new @ old < 0.75 for old in directions):
            directions.append(new)
    which = np.concatenate([np.arange(m), rng.integers(0, m, (k or 2 * m) - m)])
    unit = np.stack(directions)[which]
    turn = rng.standard_normal(unit.shape)
    turn -= (turn * unit).sum(1, keepdims=True) * unit
    turn *= rng.uniform(0, 0.01, (len(unit), 1)) / np.linalg.norm(turn, axis=1, keepdims=True)
    turned = (unit + turn) * rng.uniform(0.5, 2, (len(unit), 1))
    return torch.from_numpy(turned.astype(np.float32))


def noise(*shape: int) -> torch.Tensor:
    """Some other tensor."""
    return torch.from_numpy(np.random.default_rng(shape).standard_normal(shape).astype(np.float32))


def linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> State:
    layer = {f"{name}.weight": noise(outputs, inputs)}
    return layer | ({f"{name}.bias": noise(outputs)} if bias else {})


def plain(module: str, m: int, *, bias: bool = False, k: int = 0, d: int = D) -> State:
    """A linear layer of prototypes."""
    weight = rows(m, k, d)
    return {f"{module}.weight": weight} | ({f"{module}.bias": noise(len(weight))} if bias else {})


def normed(module: str, m: int, *, new: bool = False, k: int = 0, d: int = D) -> State:
    """A weight-normed one, in the old or the new writing."""
    g, v = ("weight_g", "weight_v")
    if new:
        g, v = (f"parametrizations.weight.original{i}" for i in range(2))
    weight = rows(m, k, d)
    return {f"{module}.{g}": torch.ones(len(weight), 1), f"{module}.{v}": weight}


def chain(
    module: str,
    layers: tuple[int | str, ...] = (0, 2, 4),
    widths: tuple[int, ...] = (16, 32, 32, D),
    *,
    bias: bool = True,
) -> State:
    """The linear layers of a projection head; the last one ends in the prototypes' dimension."""
    state: State = {}
    for layer, inputs, outputs in zip(layers, widths, widths[-len(layers) :], strict=False):
        state[f"{module}.{layer}.weight"] = noise(outputs, inputs)
        if bias:
            state[f"{module}.{layer}.bias"] = noise(outputs)
    return state


def vit(prefix: str = "backbone.") -> State:
    """A vision transformer of one block."""
    return under(
        prefix,
        {
            "cls_token": noise(1, 1, 16),
            "patch_embed.proj.weight": noise(16, 3, 4, 4),
            "blocks.0.attn.qkv.weight": noise(48, 16),
            "blocks.0.mlp.fc1.weight": noise(64, 16),
            "norm.weight": noise(16),
        },
    )


def resnet(prefix: str = "backbone.") -> State:
    """The beginning of a residual network."""
    return under(prefix, {"conv1.weight": noise(8, 3, 7, 7), "bn1.running_mean": noise(8)})


def under(prefix: str, *states: State) -> State:
    """The same tensors with a prefix."""
    return {prefix + key: tensor for state in states for key, tensor in state.items()}


def dino(m: int, *, head: str = "head", new: bool = False) -> State:
    """DINO's network: backbone, projection head and weight-normed prototypes."""
    return vit() | chain(f"{head}.mlp") | normed(f"{head}.last_layer", m, new=new)


class Layouts(dict[str, Layout]):
    """Layouts by name; two decorators fill it."""

    def tree(
        self,
        source: str,
        *heads: Head,
        refusal: str = "",
        note: str = "",
        name: str = "checkpoint.pth",
    ) -> Callable[[Callable[[], Any]], None]:
        """What the function returns, saved by torch under a name."""

        def register(build: Callable[[], Any]) -> None:
            def write(folder: Path) -> Path:
                torch.save(build(), folder / name)
                return folder / name

            self[build.__name__] = Layout(source, write, heads, refusal, note)

        return register

    def file(
        self, source: str, *heads: Head, refusal: str = "", note: str = ""
    ) -> Callable[[Callable[[Path], Path]], None]:
        """What the function writes itself."""

        def register(write: Callable[[Path], Path]) -> None:
            self[write.__name__] = Layout(source, write, heads, refusal, note)

        return register
