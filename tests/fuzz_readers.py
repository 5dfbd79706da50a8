"""Feed damaged checkpoints to the readers: ``make fuzz``, or ``python tests/fuzz_readers.py``.

Every mutated file must be read, or refused with a CollapseAuditError, within seconds, and must run
nothing. Each is made from (seed, number) alone, so a failure can be made again.
"""

from __future__ import annotations

import argparse
import io
import random
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from collapse_audit.checkpoints.ranged_files import read_index
from collapse_audit.checkpoints.reading import read_checkpoint

from collapse_audit.errors import CollapseAuditError
from collapse_audit.remote.remote_files import FileVersion

SECONDS_PER_FILE = 10
RUNS_CODE = frozenset({"os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen"})
MARKER = "collapse_audit_fuzz_ran_code"


class MemoryFile:
    """A remote file in memory, with the interface of the storage layer."""

    def __init__(self, data: bytes) -> None:
        self.shown = "memory.pth"
        self.data = data
        self.head = data[:512]
        self.version = FileVersion(len(data))
        self.has_ranges = True

    def read(self, start: int, length: int) -> bytes:
        data = self.data[start : start + length]
        if start < 0 or len(data) != length:
            raise CollapseAuditError("a range outside the file")
        return data

    def stream(self, start: int, length: int | None) -> Iterator[bytes]:
        yield self.read(start, len(self.data) - start if length is None else length)


class Malicious:
    """An object whose pickle runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {Path(tempfile.gettempdir()) / MARKER}",)


def seeds() -> dict[str, bytes]:
    """Small files of every container, among them one that wants to run a command."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(12, 8, generator=generator)
    tree = {
        "teacher": {"head.last_layer.weight_v": weight, "head.last_layer.weight_g": weight[:, :1]},
        "optimizer": {"state": {0: {"step": 3, "exp_avg": weight.t()}}, "param_groups": [{}]},
        "args": argparse.Namespace(lr=np.float64(0.1), arch="vit"),
        "epoch": 3,
    }

    def saved(value: Any, **options: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer, **options)
        return buffer.getvalue()

    import safetensors.torch

    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, weight.numpy())
    np.savez_compressed(npz, a=weight.numpy())
    return {
        "zip": saved(tree),
        "zip protocol 4": saved(tree, pickle_protocol=4),
        "legacy": saved(tree, _use_new_zipfile_serialization=False),
        "malicious": saved({"a": weight, "b": Malicious()}),
        "safetensors": safetensors.torch.save({"last_layer.weight": weight}),
        "npy": npy.getvalue(),
        "npz": npz.getvalue(),
    }


def mutate(data: bytes, draw: random.Random) -> bytes:
    """One to four changes of a kind that finds different bugs each."""
    result = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(result) or 1)
        kind = draw.randrange(7)
        if kind == 0:
            result[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 1:  # numbers at their limits, where sizes and offsets stand
            result[at : at + 4] = draw.choice((b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f"))
        elif kind == 2:
            del result[at:]
        elif kind == 3:
            del result[at : at + draw.randrange(1, 32)]
        elif kind == 4:
            other = draw.randrange(len(result) or 1)
            result[at:at] = result[other : other + draw.randrange(1, 64)]
        elif kind == 5:
            result[at : at + 1] = draw.choice(b"().0122KMNRQb}]edustcq\x85\x86\x93").to_bytes()
        else:
            result[at : at + 8] = draw.randbytes(8)
    return bytes(result)


def with_mutated_index(data: bytes, draw: random.Random) -> bytes:
    """A sound archive around a mutated pickle, which byte changes alone seldom give."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as target,
    ):
        for info in source.infolist():
            content = source.read(info)
            if info.filename.endswith("data.pkl"):
                content = mutate(content, draw)
            target.writestr(info.filename, content)
    return buffer.getvalue()


def read_in_parts(data: bytes) -> None:
    """The reader of remote files, down to the bounds of each tensor."""
    index = read_index(MemoryFile(data))
    if index is not None:
        for tensor in index.tensors:
            tensor.check("memory.pth")


def read_whole(data: bytes, path: Path) -> None:
    """The reader of local files."""
    path.write_bytes(data)
    for tensor in read_checkpoint(path).tensors.values():
        tensor.read()


@contextmanager
def time_limit() -> Iterator[None]:
    """Turn a hang into an error that names the file."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"no answer after {SECONDS_PER_FILE} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS_PER_FILE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Read ``count`` mutated files with both readers; return the outcomes and the failures."""
    events: list[str] = []
    sys.addaudithook(lambda event, _: events.append(event) if event in RUNS_CODE else None)
    files, outcomes, failures = list(seeds().items()), Counter[str](), []
    marker = Path(tempfile.gettempdir()) / MARKER
    marker.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutated.pth"
        readers: tuple[tuple[str, Callable[[bytes], None]], ...] = (
            ("parts", read_in_parts),
            ("whole", lambda data: read_whole(data, path)),
        )
        for number in range(count):
            draw = random.Random(f"{seed}/{number}")
            name, original = files[number % len(files)]
            deep = original.startswith(b"PK") and name != "npz" and draw.random() < 0.5
            data = (with_mutated_index if deep else mutate)(original, draw)
            for reader, read in readers:
                try:
                    with time_limit():
                        read(data)
                    outcomes[f"{reader}: read"] += 1
                except CollapseAuditError as error:
                    outcomes[f"{reader}: {type(error).__name__}"] += 1
                except BaseException as error:  # that is what is looked for
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    failures.append(f"{name}, seed {seed}, number {number}, {reader}: {error!r}")
    if events or marker.exists():
        failures.append(f"code was run: {events}")
    return outcomes, failures


def main() -> int:
    """Parse the arguments, print counts and failures, return 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.monotonic()
    outcomes, failures = fuzz(arguments.count, arguments.seed)
    for outcome, number in sorted(outcomes.items()):
        sys.stdout.write(f"{number:8,}  {outcome}\n")
    for failure in failures:
        sys.stdout.write(f"FAILED  {failure}\n")
    sys.stdout.write(
        f"{arguments.count:,} mutated files, seed {arguments.seed}, {len(failures)} failures, "
        f"{time.monotonic() - began:.0f} s\n"
    )
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
