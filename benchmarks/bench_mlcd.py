"""Speed and memory of the MLCD accumulation, against the bare product and a naive softmax.

Run ``python benchmarks/bench_mlcd.py`` (about half a minute on two cores). All times come from
the same run, the best of several rounds; only their ratios mean anything on a shared machine.

1. Tokens per second of ``MLCDAccumulator.update`` as a ratio to the bare matrix product of the
   same shapes, written into one array that is reused (aim: 0.5 or better).
2. The same against ``softmax(x @ w.T / t).mean(0)`` with its per-sample entropies, in time and in
   memory beyond the inputs. Memory is the peak resident size of a fresh process each (Linux).
3. Both answers are asserted to agree with a float64 softmax.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from collapse_audit import Prototypes
from collapse_audit.mlcd import MLCDAccumulator

TEMPERATURE = 0.05


def inputs(k: int, d: int, n: int) -> tuple[Prototypes, torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((k, d)).astype(np.float32)
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    x = torch.from_numpy(generator.standard_normal((n, d)).astype(np.float32))
    return Prototypes.from_weight(weight), torch.from_numpy(weight), x


def naive(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, float]:
    unit = torch.nn.functional.normalize(x, dim=1)
    p = torch.softmax(unit @ weight.T / TEMPERATURE, dim=1)
    return p.mean(0), float(-(p * p.log()).sum(1).mean())


def bare_product(x: torch.Tensor, weight: torch.Tensor) -> Callable[[], object]:
    unit, out = torch.nn.functional.normalize(x, dim=1), x.new_empty(len(x), len(weight))
    return lambda: torch.mm(unit, weight.T, out=out)


def best_times(
    rounds: int, works: dict[str, Callable[[], object]], wait: Callable[[], None]
) -> dict[str, float]:
    """Best time of each; they take turns, so that other load meets all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            wait()
            start = time.perf_counter()
            work()
            wait()
            times[name].append(time.perf_counter() - start)
    return {name: min(measured[1:]) for name, measured in times.items()}  # the first warms up


def measure(k: int, d: int, n: int, rounds: int, device: str) -> dict[str, float]:
    prototypes, weight, x = inputs(k, d, n)
    weight, x = weight.to(device), x.to(device)
    accumulator = MLCDAccumulator(prototypes, temperature=TEMPERATURE, device=device)
    times = best_times(
        rounds,
        {
            "product": bare_product(x, weight),
            "ours": lambda: accumulator.update(x),
            "naive": lambda: naive(x, weight),
        },
        torch.cuda.synchronize if device.startswith("cuda") else lambda: None,
    )
    check(prototypes, weight, x, device)
    return {
        "tokens_per_s": n / times["ours"],
        "ratio_to_product": times["product"] / times["ours"],
        "times_faster_than_naive": times["naive"] / times["ours"],
    }


def check(prototypes: Prototypes, weight: torch.Tensor, x: torch.Tensor, device: str) -> None:
    """Both agree with float64 on the first samples."""
    some = x[:64]
    accumulator = MLCDAccumulator(prototypes, temperature=TEMPERATURE, device=device)
    result = accumulator.update(some).result()
    p, entropy = naive(some.double(), weight.double())
    np.testing.assert_allclose(result.probabilities, p.cpu().numpy(), rtol=1e-4)
    np.testing.assert_allclose(result.mean_entropy, entropy, rtol=1e-5)


def peak_megabytes(which: str, k: int, d: int, n: int) -> float:
    """Resident memory that one way of doing it adds, in a process of its own."""
    command = [sys.executable, __file__, "--memory", which, "-k", str(k), "-d", str(d)]
    done = subprocess.run([*command, "-n", str(n)], check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout))


def memory(which: str, k: int, d: int, n: int) -> None:
    prototypes, weight, x = inputs(k, d, n)
    torch.nn.functional.normalize(x[:1] @ weight[:64].T).softmax(1)  # load the libraries first
    # ru_maxrss would start at the parent's peak; this one can be reset (Linux)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_kilobytes()
    if which == "naive":
        naive(x, weight)
    else:
        MLCDAccumulator(prototypes, temperature=TEMPERATURE).update(x).result()
    print(json.dumps((peak_kilobytes() - before) / 1024))


def peak_kilobytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", type=int, default=65536)
    parser.add_argument("-d", type=int, default=256)
    parser.add_argument("-n", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", choices=["ours", "naive"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    shape = (arguments.k, arguments.d, arguments.n)
    if arguments.memory:
        memory(arguments.memory, *shape)
        return
    results = measure(*shape, arguments.rounds, arguments.device)
    if arguments.device == "cpu":
        results |= {f"mb_{which}": peak_megabytes(which, *shape) for which in ("ours", "naive")}
    print(f"k={shape[0]} d={shape[1]} n={shape[2]} threads={torch.get_num_threads()}")
    for name, value in results.items():
        print(f"{name:26}{value:12.2f}")


if __name__ == "__main__":
    main()
