"""What KoLeo-proto costs, beside a blocked product, the dense implementation and a training step.

``python benchmarks/bench_koleo.py`` prints two tables and, with ``--figure FILE.svg``, draws memory
against K. Every measurement runs in a process of its own with one thread; times are CPU seconds,
which a busy machine distorts less than wall time. Every answer is checked: losses and gradients
against the dense implementation while that fits, and against exhaustive float64 neighbours of a
sample of rows above.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from collapse_audit.koleo import koleo_proto_loss, nearest_neighbours
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.data import load_data
from collapse_audit.training.loop import make_state, train

_ROOT = Path(__file__).resolve().parents[1]
_BLOCK = 2048
_MOST_DENSE = 8192
_SAMPLE = 200
_ENOUGH_SECONDS = 2.0


def weights(k: int, d: int) -> Tensor:
    """Prototypes at random, the same in every process (k x d)."""
    return torch.randn(k, d, generator=torch.Generator().manual_seed(k))


def dense_loss(weight: Tensor) -> Tensor:
    """The usual few lines: all K x K similarities at once."""
    unit = functional.normalize(weight, dim=1)
    with torch.no_grad():
        neighbour = (unit @ unit.T).fill_diagonal_(-torch.inf).argmax(dim=1)
    distance: Tensor = (unit - unit[neighbour]).norm(dim=1)
    return -distance.log().mean()


def blocked_product(weight: Tensor) -> Tensor:
    """All K x K inner products, a block at a time: the work that no exact search can do without."""
    with torch.no_grad():
        blocks = torch.split(weight, _BLOCK)
        tile = weight.new_empty(_BLOCK, _BLOCK)
        for left in blocks:
            for right in blocks:
                torch.mm(left, right.T, out=tile[: len(left), : len(right)])
    return weight.sum()


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "koleo-proto": koleo_proto_loss,
    "dense": dense_loss,
    "blocked product": blocked_product,
}


def measure_loss(name: str, k: int, d: int, answer: Path) -> dict[str, float]:
    """Forward and backward, here and now; the gradient goes to a file.

    Memory is that of the first call, time that of the fastest of all within about two seconds.
    """
    loss_of = LOSSES[name]
    torch.autograd.backward(loss_of(weights(64, d).requires_grad_()))  # imports, thread pools
    weight = weights(k, d).requires_grad_()
    weight.grad = torch.zeros_like(weight)
    before, times = _largest_mb(), list[float]()
    while sum(times) < _ENOUGH_SECONDS:
        weight.grad.zero_()
        start = process_time()
        loss = loss_of(weight)
        torch.autograd.backward(loss)
        times.append(process_time() - start)
        if len(times) == 1:
            peak = _largest_mb() - before
    np.savez(answer, loss=loss.item(), gradient=weight.grad.numpy())
    return {"seconds": min(times), "peak_mb": peak}


def measure_step(regulariser: str, k: int, d: int, _: Path) -> dict[str, float]:
    """One training step of a DINO head on 1024 cached features, two views each."""
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npz"
        np.savez(path, features=draw.normal(size=(2048, 384)).astype(np.float32))
        config = HeadTrainingConfig(
            data=str(path), k=k, d=d, hidden=2048, batch_size=1024, objective="dino", iterations=1,
            regulariser=regulariser,
        )  # fmt: skip
        data = load_data(config)
    small = replace(config, k=64)
    train(make_state(small, data), data, small, on_audit=_no_audit, on_save=_no_save, quiet=True)
    state, start = make_state(config, data), process_time()
    train(state, data, config, on_audit=_no_audit, on_save=_no_save, quiet=True)
    return {"seconds": process_time() - start}


def apart(kind: str, name: str, k: int, d: int, answer: Path) -> dict[str, float]:
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", kind, name, str(k), str(d), str(answer)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(_ROOT)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def check(k: int, d: int, ours: Path, dense: Path | None) -> None:
    """Compare an answer with the dense one, or with float64 neighbours of a sample of rows."""
    answer = np.load(ours)
    if dense is not None:
        expected = np.load(dense)
        np.testing.assert_allclose(answer["loss"], expected["loss"], rtol=1e-5)
        scale = np.abs(expected["gradient"]).max()
        np.testing.assert_allclose(answer["gradient"], expected["gradient"], atol=1e-4 * scale)
        return
    unit = functional.normalize(weights(k, d), dim=1)
    rows = torch.randperm(k, generator=torch.Generator().manual_seed(0))[:_SAMPLE]
    exact = unit.double()
    named = (exact[rows] * exact[nearest_neighbours(unit)[rows]]).sum(dim=1)
    cosine = exact[rows] @ exact.T
    cosine[torch.arange(len(rows)), rows] = -torch.inf
    torch.testing.assert_close(named, cosine.amax(dim=1), rtol=0, atol=1e-6)


def loss_table(ks: Sequence[int], d: int) -> list[dict[str, Any]]:
    """Time and memory of every method for every K."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for k in ks:
            found: dict[str, Any] = {"k": k}
            for name in LOSSES if k <= _MOST_DENSE else ("koleo-proto", "blocked product"):
                found[name] = apart("loss", name, k, d, Path(folder) / f"{name}.npz")
            dense = Path(folder) / "dense.npz" if k <= _MOST_DENSE else None
            check(k, d, Path(folder) / "koleo-proto.npz", dense)
            rows.append(found)
            print(_line(found), flush=True)
    return rows


def step_table(ks: Sequence[int], d: int) -> None:
    """Share of KoLeo-proto in a training step."""
    print("\n| K | step without | step with | share of KoLeo-proto |\n|---|---|---|---|")
    for k in ks:
        without, with_it = (
            min(apart("step", name, k, d, Path(os.devnull))["seconds"] for _ in range(2))
            for name in ("none", "koleo-proto")
        )
        share = (with_it - without) / with_it
        print(f"| {k:,} | {without:.2f} s | {with_it:.2f} s | {share:.0%} |", flush=True)


def draw_memory(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Peak memory against K, log-log."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in ("koleo-proto", "dense"):
        points = [(row["k"], row[name]["peak_mb"]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), "o-", label=name)
    ks = [row["k"] for row in rows]
    axes.axhline(1000, color="0.6", linestyle=":", label="1 GB")
    axes.set(xscale="log", yscale="log", xlabel="prototypes K", ylabel="peak memory, MB")
    axes.set_xticks(ks, [f"{k:,}" for k in ks])
    axes.minorticks_off()
    axes.legend()
    figure.savefig(path, format="svg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k", type=int, nargs="+", default=[2048, 4096, 8192, 16384, 65536])
    parser.add_argument("--step-k", type=int, nargs="*", default=[4096, 8192])
    parser.add_argument("--d", type=int, default=256)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, name, k, d, answer = options.measure
        torch.set_num_threads(1)
        measure = {"loss": measure_loss, "step": measure_step}[kind]
        print(json.dumps(measure(name, int(k), int(d), Path(answer))))
        return
    torch.set_num_threads(1)
    print(
        "| K | KoLeo-proto | blocked product | ratio | dense | ratio |\n|---|---|---|---|---|---|"
    )
    rows = loss_table(options.k, options.d)
    if options.figure:
        draw_memory(rows, options.figure)
    step_table(options.step_k, options.d)


def _line(row: dict[str, Any]) -> str:
    ours, product, dense = row["koleo-proto"], row["blocked product"], row.get("dense")
    cells = [f"{row['k']:,}", _cost(ours), f"{product['seconds']:.2f} s"]
    cells.append(f"{ours['seconds'] / product['seconds']:.2f}")
    cells += [_cost(dense), f"{ours['seconds'] / dense['seconds']:.2f}"] if dense else ["", ""]
    return f"| {' | '.join(cells)} |"


def _cost(sample: dict[str, float]) -> str:
    return f"{sample['seconds']:.2f} s, {sample['peak_mb']:.0f} MB"


def _largest_mb() -> float:
    """Largest resident memory of this process so far, in 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _no_audit(*_: object) -> dict[str, float]:
    return {}


def _no_save(_: object) -> None:
    return None


if __name__ == "__main__":
    main()
