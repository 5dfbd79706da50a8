"""One measurement: a method on an input, in a process of its own, after a small warm-up.

Wall time and CPU time (all threads) are those of the call alone. The peak of memory is that above
the imports, the warm-up and the input. Calls shorter than a second are repeated, and the median
kept. ``python -m benchmarks.measure METHOD ROWS.npy OUT DEVICE`` is what the new process runs.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import ours, peers, products
from benchmarks.inputs import Rows
from benchmarks.methods import Answer, Method

_ENOUGH_SECONDS = 1.0
_MOST_REPEATS = 5
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One measurement.

    Attributes:
        wall: Seconds of one call, median of the repeats.
        cpu: CPU seconds of one call over all threads, median of the repeats.
        peak_mb: Largest resident memory during the first call above that before it, in 10^6 bytes.
        start_up: Seconds of imports, thread pools and trials before it, not part of ``wall``.
        repeats: Calls that were timed.
        load: Load average of the machine (1 minute) before the measurement.
        share: Part of the work that was done; ``wall`` and ``cpu`` are extrapolated if below 1.
        counts: What was counted.
        note: Library or arithmetic used.
    """

    wall: float
    cpu: float
    peak_mb: float
    start_up: float
    repeats: int
    load: float
    share: float
    counts: dict[str, int]
    note: str

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


class MeasurementError(Exception):
    """The process of a measurement failed: out of memory, out of time, or a defect."""


def all_methods(device: str = "cpu") -> list[Method]:
    """Everything that can be measured, in the order of the table."""
    return [*ours.methods(device), *products.methods(), *peers.methods()]


def measure(
    method: Method, rows: Rows, *, most_repeats: int = _MOST_REPEATS
) -> tuple[Sample, Answer]:
    """Run a method here and now.

    Args:
        method: What to measure.
        rows: Its input (k x d).
        most_repeats: How often a short call is repeated at most.

    Returns:
        The times, and the answer for checks.
    """
    load = os.getloadavg()[0]
    start = perf_counter()
    method.warm_up(rows)
    start_up = perf_counter() - start
    gc.collect()
    before = _reset_peak()
    walls: list[float] = []
    cpus: list[float] = []
    peak = 0.0
    found: Any = None
    while not walls or (sum(walls) < _ENOUGH_SECONDS and len(walls) < most_repeats):
        found = None
        wall, cpu = perf_counter(), process_time()
        found = method.run(rows)
        walls.append(perf_counter() - wall)
        cpus.append(process_time() - cpu)
        peak = peak or _peak() - before
    answer = method.read(found, rows)
    sample = Sample(
        wall=statistics.median(walls) / answer.share,
        cpu=statistics.median(cpus) / answer.share,
        peak_mb=max(peak, 0.0) / 1e6,
        start_up=start_up,
        repeats=len(walls),
        load=load,
        share=answer.share,
        counts=answer.counts,
        note=answer.note,
    )
    return sample, answer


def measure_apart(
    method: Method, rows_file: Path, *, threads: int, timeout: float, device: str
) -> tuple[Sample, Answer]:
    """Run a method in a fresh process.

    Idle OpenMP threads sleep (OMP_WAIT_POLICY=passive): spinning ones would be counted as CPU time,
    and would take the processor from whatever else runs.

    Args:
        method: What to measure.
        rows_file: Its input, as a ``.npy`` file.
        threads: Threads of OpenMP and of the BLAS libraries.
        timeout: Seconds after which it is given up.
        device: Where our own tasks run.

    Returns:
        The times, and the answer for checks.

    Raises:
        MeasurementError: If the process fails or takes too long.
    """
    environment = {
        **os.environ,
        **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
        "OMP_WAIT_POLICY": "passive",
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "answer.npz"
        command = [sys.executable, "-m", "benchmarks.measure"]
        command += [method.name, str(rows_file.resolve()), str(out), device]
        try:
            process = subprocess.run(
                command,
                env=environment,
                cwd=_ROOT,
                timeout=timeout,
                capture_output=True,
                text=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"{method.label}: not done after {timeout:.0f} s.") from None
        if process.returncode:
            lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
            raise MeasurementError(f"{method.label}: {lines[-1]}")
        return _unpack(out)


def _pack(sample: Sample, answer: Answer, path: Path) -> None:
    text = json.dumps({"sample": sample.to_dict(), "faults": answer.faults})
    none: npt.NDArray[np.float64] = np.empty(0)
    distance = none if answer.distance is None else answer.distance
    np.savez(path, text=np.array(text), distance=distance)


def _unpack(path: Path) -> tuple[Sample, Answer]:
    with np.load(path) as stored:
        told, distance = json.loads(str(stored["text"])), stored["distance"]
    sample = Sample(**told["sample"])
    answer = Answer(
        counts=sample.counts,
        distance=distance if distance.size else None,
        faults=tuple(told["faults"]),
        note=sample.note,
        share=sample.share,
    )
    return sample, answer


def _reset_peak() -> int:
    """Forget the peak of this process so far, where the system can; returns the memory in use."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _status("VmRSS")
    except OSError:
        return _peak()


def _peak() -> int:
    """Largest resident memory since the last reset, in bytes."""
    try:
        return _status("VmHWM")
    except OSError:
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest if sys.platform == "darwin" else largest * 1024


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(name)


def _main(name: str, rows_file: str, out: str, device: str) -> None:
    method = next(method for method in all_methods(device) if method.name == name)
    _pack(*measure(method, np.load(rows_file)), Path(out))


if __name__ == "__main__":
    _main(*sys.argv[1:])
