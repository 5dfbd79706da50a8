"""Result files: one per case, written after every measurement, so that a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.measure import Sample
from benchmarks.reference import Reference

_PACKAGES = ("numpy", "scipy", "torch", "faiss-cpu", "scikit-learn", "sentence-transformers")
# Modules a change of which makes results incomparable; the others print and keep them.
_MEASURING = ("inputs", "methods", "measure", "ours", "peers", "products", "reference")
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(slots=True, eq=False)
class Record:
    """What was measured of one case: an input of one size.

    Attributes:
        name: Name of the input.
        k: Prototypes.
        d: Dimension.
        fingerprint: Of the code, the packages and the machine; results of another are not reused.
        reference: What the answers must be.
        samples: Measurements by method, in the order they were made.
        failures: Why a peer could not be measured, by method.
    """

    name: str
    k: int
    d: int
    fingerprint: str
    reference: Reference
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Name of the case, also of its files."""
        return title(self.name, self.k, self.d)

    def median(self, method: str, quantity: str) -> float | None:
        """Median of a quantity over the rounds; ``None`` if the method was not measured."""
        found = self.samples.get(method)
        return statistics.median(getattr(sample, quantity) for sample in found) if found else None

    def ratio(self, method: str, base: str, quantity: str) -> float | None:
        """How many times as much of a quantity a method takes as another one."""
        above, below = self.median(method, quantity), self.median(base, quantity)
        return None if above is None or below is None else above / max(below, 1e-9)


class Store:
    """The folder of result files."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, name: str, k: int, d: int) -> Record | None:
        """What is stored of a case, if the same code measured it on the same machine."""
        path = self._folder / f"{title(name, k, d)}.json"
        if not path.is_file():
            return None
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["fingerprint"] != self._fingerprint:
            return None
        samples = {m: [Sample(**s) for s in group] for m, group in stored["samples"].items()}
        reference = Reference.from_dict(stored["reference"])
        return Record(name, k, d, stored["fingerprint"], reference, samples, stored["failures"])

    def save(self, record: Record) -> None:
        """Write a case; a run that stops halfway leaves the last complete file."""
        text = {
            "name": record.name,
            "k": record.k,
            "d": record.d,
            "fingerprint": record.fingerprint,
            "machine": machine(),
            "reference": record.reference.to_dict(),
            "samples": {m: [s.to_dict() for s in group] for m, group in record.samples.items()},
            "failures": record.failures,
        }
        path = self._folder / f"{record.title}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

    def keep_distances(self, case: str, method: str, distance: npt.NDArray[np.float64]) -> None:
        """Store the distances of the neighbours a method found, for checks in a later run."""
        np.save(self._folder / f"{case}.{method}.npy", distance)

    def distances(self, case: str, method: str) -> npt.NDArray[np.float64] | None:
        """Those stored, if any."""
        path = self._folder / f"{case}.{method}.npy"
        return np.load(path) if path.is_file() else None


def title(name: str, k: int, d: int) -> str:
    """Name of a case and of its files."""
    return f"{name}-{k}x{d}"


def machine() -> dict[str, Any]:
    """What a reader must know of the machine, and nothing that tells whose it is."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
    }


def usable_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fingerprint(options: Iterable[object]) -> str:
    """Hash of the code that is measured and that measures, of machine, packages and options."""
    digest = hashlib.sha256(json.dumps([machine(), [str(o) for o in options]]).encode())
    sources = sorted((_ROOT / "collapse_audit" / "similarity").rglob("*.py"))
    sources += [_ROOT / "collapse_audit" / "prototypes.py"]
    sources += [_ROOT / "benchmarks" / f"{name}.py" for name in _MEASURING]
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _processor() -> str:
    """Model and vector extensions, as far as the system tells."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor() or platform.machine()
    entries = dict(
        [part.strip() for part in line.split(":", 1)]
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if ":" in line
    )
    flags = set(entries.get("flags", "").split())
    known = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    return " ".join([entries.get("model name", platform.machine()), *known])


def _memory_gb() -> int:
    if sys.platform == "win32":
        return 0
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
