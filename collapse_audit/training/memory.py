"""Peak memory of a part of a run, where the system tells it, and what if there is too little."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from collapse_audit.errors import ParameterError
from collapse_audit.words import printable

_PROCESS = Path("/proc/self")
_MEGABYTE = 1e6
_TOO_LITTLE = re.compile("memory|Storage size")


@dataclass(slots=True)
class PeakMemory:
    """Peak of a block above what was held when it began; ``None`` before its end or if unknown."""

    megabytes: float | None = None  # 10^6 bytes


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Measure the peak memory of a block: allocated on a CUDA device, else resident (on Linux)."""
    # Memory that the process has freed but kept is given back first, so that blocks measured one
    # after the other do not hide in what earlier ones needed.
    peak = PeakMemory()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.megabytes = (torch.cuda.max_memory_allocated(device) - before) / _MEGABYTE
    else:
        held = _resident_after_reset()
        yield peak
        largest = _status("VmHWM")
        if held is not None and largest is not None:
            peak.megabytes = (largest - held) / _MEGABYTE


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn memory that cannot be had, which is an error of many kinds, into one of the settings."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _TOO_LITTLE.search(str(error)):
            raise
        raise ParameterError(
            f"There is too little memory ({printable(' '.join(str(error).split()), 160)}).",
            hint="Lower k, d, hidden, views, pool, limit or `batch_size=N`.",
        ) from error


def _resident_after_reset() -> int | None:
    """Bytes resident now, after the kernel was told to forget the peak; ``None`` if it cannot."""
    if not _PROCESS.is_dir():
        return None
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        (_PROCESS / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return None
    return _status("VmRSS")


def _status(name: str) -> int | None:
    """A size from the process's status, in bytes."""
    try:
        text = (_PROCESS / "status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return None if found is None else 1024 * int(found[1])
