"""``python -m benchmarks.shell``: whole commands, beside scripts that answer the same questions."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks import table
from benchmarks.inputs import make
from benchmarks.records import machine, usable_cores

_PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
_MARKS = ("<!-- shell:begin -->", "<!-- shell:end -->")
_SIZES = (8192, 65536, 262_144)
_HEADS = ("collapsed", "healthy", "near-threshold", "lattice")
_ONCE_SECONDS, _ROUNDS = 5.0, 3
# What a machine without AVX-512 and bf16 would do: each library is told to use AVX2 alone.
_AVX2 = (
    ("ONEDNN_MAX_CPU_ISA", "AVX2"),
    ("ATEN_CPU_CAPABILITY", "avx2"),
    ("MKL_ENABLE_INSTRUCTIONS", "AVX2"),
    ("OPENBLAS_CORETYPE", "Haswell"),
    ("NPY_DISABLE_CPU_FEATURES", "X86_V4 AVX512_ICL AVX512_SPR"),
)
_FLOAT32 = (("COLLAPSE_AUDIT_ARITHMETIC", "float32"),)


@dataclass(frozen=True, slots=True)
class Command:
    """What is typed.

    Attributes:
        label: Name of the row.
        words: Arguments after the interpreter, without the file.
        environment: Variables on top of the process's own.
        most: Largest K it is run at.
    """

    label: str
    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    most: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds, megabytes and the answer of one process."""

    wall: float
    cpu: float
    memory: float
    answer: dict[str, Any]


def _commands() -> list[Command]:
    # scripts hold all pairs of a block: beyond the middle size they take minutes and gigabytes
    ours = ("-m", "collapse_audit", "audit", "--json")
    peer = ("-m", "benchmarks.whole_audit")
    return [
        Command("collapse-audit", ours, (), _SIZES[-1]),
        Command("collapse-audit, float32 forced", ours, _FLOAT32, _SIZES[-1]),
        Command("collapse-audit, AVX2 alone", ours, _AVX2, _SIZES[-1]),
        Command("script with faiss", (*peer, "faiss"), (), 65536),
        Command("script with scikit-learn", (*peer, "sklearn"), (), 65536),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, compare the answers, print the tables and write them into the page.

    Args:
        arguments: Those of the command line; the process's own if ``None``.

    Returns:
        0, or 1 if two answers differ that must not.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shell", description=__doc__)
    parser.add_argument("--k", type=int, nargs="+", default=_SIZES)
    parser.add_argument("--input", nargs="+", choices=_HEADS, default=_HEADS)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds a command may take")
    parser.add_argument("--docs", action="store_true", help="write the tables into the page")
    options = parser.parse_args(arguments)
    tables, faults = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.input:
            for k in options.k:
                if name == "lattice" and k > 4**8:
                    continue
                file = _write(name, k, Path(folder))
                costs = {c: _cost(c, file, options.limit) for c in _commands() if k <= c.most}
                faults += [f"{name}, K = {k:,}: {fault}" for fault in _disagreements(name, costs)]
                tables.append(_table(name, k, costs, options.limit))
                print(tables[-1], flush=True)
    for fault in faults:
        print(f"FAILED: {fault}", file=sys.stderr)
    if options.docs and not faults:
        text = f"{_where()}\n\n" + "\n".join(tables)
        page = _PAGE.read_text(encoding="utf-8")
        _PAGE.write_text(table.insert(page, text, marks=_MARKS), encoding="utf-8")
    return 1 if faults else 0


def _write(name: str, k: int, folder: Path) -> Path:
    if name == "lattice":
        # points of {-3, -1, 1, 3}^8: scores of few values, most of them exactly at a threshold
        index = np.sort(np.random.default_rng(k).choice(4**8, k, replace=False))
        rows = np.array([-3, -1, 1, 3], np.float32)[index[:, None] // 4 ** np.arange(8) % 4]
    else:
        rows = make(name, k, 256).rows
    path = folder / f"{name}.safetensors"
    save_file({"head.last_layer.weight": rows}, path)
    return path


def _cost(command: Command, file: Path, limit: float) -> Cost | None:
    """The median of some runs of the whole process, or one of a long one."""
    costs: list[Cost] = []
    while len(costs) < _ROUNDS and (not costs or costs[0].wall < _ONCE_SECONDS):
        cost = _run(command, file, limit)
        if cost is None:
            return None
        costs.append(cost)
    return sorted(costs, key=lambda cost: cost.wall)[len(costs) // 2]


def _run(command: Command, file: Path, limit: float) -> Cost | None:
    environment = {**os.environ, **dict(command.environment), "OMP_WAIT_POLICY": "passive"}
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command.words, str(file)], stdout=out, env=environment
        )
        killer = threading.Timer(limit, process.kill)
        killer.start()
        _, status, usage = os.wait4(process.pid, 0)  # the only call that tells what one child used
        wall = time.perf_counter() - start
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode == -signal.SIGKILL and wall >= limit:
            return None
        if process.returncode:
            raise RuntimeError(f"{command.label}: exit status {process.returncode}")
        out.seek(0)
        answer = json.load(out)
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, answer)


def _disagreements(name: str, costs: Mapping[Command, Cost | None]) -> Iterator[str]:
    """Counts that differ from those of the first command."""
    answers = {c.label: _levels(cost.answer) for c, cost in costs.items() if cost is not None}
    first = next(iter(answers.values()), None)
    for label, levels in answers.items():
        exact = "collapse-audit" in label
        # what lies at a threshold is decided by rounding in float32
        if levels != first and (exact or name in ("collapsed", "healthy")):
            yield f"{label} counts {levels}, not {first}"


def _levels(answer: Mapping[str, Any]) -> list[tuple[int, ...]]:
    return [
        (level["greedy"], level["components"], level["isolated"])
        for level in answer.get("heads", [answer])[0]["sweep"]
    ]


def _table(name: str, k: int, costs: Mapping[Command, Cost | None], limit: float) -> str:
    shape = f"{k:,} x {8 if name == 'lattice' else 256}"
    lines = [f"### From the shell: {name}, {shape}", ""]
    lines += ["| Command | wall, s | CPU, s | peak memory, MB |", "|---|--:|--:|--:|"]
    for command, cost in costs.items():
        if cost is None:
            lines.append(f"| {command.label} | over {limit:.0f} | | |")
        else:
            row = f"{cost.wall:.2f} | {cost.cpu:.2f} | {cost.memory:.0f}"
            lines.append(f"| {command.label} | {row} |")
    return "\n".join([*lines, ""])


def _where() -> str:
    here = machine()
    packages = ", ".join(f"{name} {number}" for name, number in here["packages"].items())
    return (
        f"{here['processor']}; {usable_cores()} cores, {here['memory_gb']} GB; Python "
        f"{here['python']}, {packages}. Load when it began: {_LOAD:.1f}."
    )


_LOAD = os.getloadavg()[0]

if __name__ == "__main__":
    sys.exit(main())
