"""Differential fuzzing of the readers of checkpoints: ``make fuzz``.

Programs for the index machine (tests/fuzz_programs.py) and damaged files of every container
(tests/fuzz_files.py) are read from the disk, from memory in parts, and, some, from a web server.
All ways must give the same. What torch (with weights_only, or else with Python's own unpickler),
safetensors or numpy read must come out bit by bit, or be refused for one of :data:`REASONS`; what
we read in a folder must be what torch.distributed.checkpoint or safetensors read there. Every
refusal is a CollapseAuditError, within seconds and without much memory, and nothing is run. Each
file is made from a seed and its number alone, so a failure can be made again.

Where each class of hostile input has its generator; all have a seed:

1. one file, two answers: here, of all containers, three readers of ours beside torch, Python,
   numpy, safetensors and torch.distributed.checkpoint
2. wrong values: here (checksums, storages, pieces), and tests/containers/test_views.py
3. hangs and memory: here, with a limit on each file, and tests/hostile_files.py
4. numbers and depth: here (``_NUMBERS`` of tests/fuzz_programs.py), tests/test_settings.py for TOML
   and YAML, tests/test_hostile_reports.py for reports, tests/test_hostile_answers.py for headers
5. the cache: tests/test_hostile_cache.py
6. names of temporary files, links, pipes, devices: tests/test_hostile_cache.py
7. addresses: tests/test_hostile_addresses.py
8. names as text of others: tests/test_hostile_names.py
9. genuine files: tests/test_genuine_beside.py, tests/containers/test_same_everywhere.py
10. faults of processes: tests/test_hostile_rewriting.py, tests/test_monitor.py
11. the trainer: tests/test_training_run.py
"""

from __future__ import annotations

import argparse
import io
import itertools
import pickle
import random
import re
import resource
import signal
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collapse_audit.containers.opening import read_checkpoint, read_path
from collapse_audit.containers.tensors import WIDTHS, Checkpoint
from collapse_audit.errors import CollapseAuditError, SourceError
from collapse_audit.remote.addresses import remote_of_url
from collapse_audit.remote.remote_source import open_source
from collapse_audit.remote.reporting import SILENT
from collapse_audit.remote.settings import RemoteSettings
from tests.fuzz_files import MARKER, Files, mutated
from tests.fuzz_oracle import Oracle
from tests.fuzz_programs import program_file
from tests.loopback_server import LoopbackServer

SECONDS, MEMORY = 10.0, 400e6  # of the processor; a busy machine makes less of a second
READS, READ_BYTES = 8, 1 << 16  # for the index, and for each tensor; of a long index
NAME = "program"
FOLDERS = frozenset({"dcp", "run", "shards"})  # what the other readers of folders are called
RUNS_CODE = frozenset({"os.system", "os.exec", "os.posix_spawn", "os.spawn"})

#: Why we may refuse what another reader takes: what our message says, and what is in the file.
REASONS = {
    "outside of its storage": (
        "but its storage has only|its storage is not where|not those of the index|: truncated: |"
        "the header declares",
        b"",
    ),
    "a size that counts nothing": (r"ValueError \(not a natural number\)", b""),
    "a storage whose name is no text": (r"ValueError \(not a storage\)", b""),
    "a shape without strides": (r"ValueError \(not a tensor\)", b""),
    "an item for what holds none": (r"TypeError \(an item for something that holds none\)", b""),
    "a name that is no ASCII": ("'ascii' codec", b""),
    "over 64 dimensions": (r"ValueError \(too many dimensions\)", b""),
    "one storage in two ways": ("a storage that is described twice", b""),
    "other values behind it": ("gives a tensor other values", b""),
    "arguments that are no tuple": ("arguments that are no tuple", b""),
    "converted when it is read": ("missing", b"_rebuild_device_tensor"),
    "a damaged zip directory": ("the index at its end cannot be read", b"PK"),
    "a wrong checksum": ("its checksum is not that of the directory", b"PK"),
    "a zip directory that can be read in two ways": (
        "points to places without|has two sizes|lies inside another|appears more than once",
        b"PK",
    ),
    "packed too well": ("unpacks to", b"PK"),
    "a header that begins with something else": ("not a checkpoint format known", b'{"'),
}
Outcome = dict[str, Any] | str  # tensors by key, or why the file is refused


class OutsideError(Exception):
    """A reader asked for bytes that there are not."""


class Memory:
    """A byte source that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size, self.reads = data, len(data), 0

    def read(self, start: int, n: int) -> bytes:
        if not 0 <= start <= start + n <= self.size:
            raise OutsideError(f"{n} bytes from {start} of {self.size}")
        self.reads += 1
        return self.data[start : start + n]


class Address:
    """Reads files through the loopback interface."""

    def __init__(self, cache: Path) -> None:
        self.server = LoopbackServer()
        self._cache, self._number = cache, itertools.count()

    def read(self, files: Files, main: str) -> Checkpoint:
        folder = next(self._number)
        self.server.files = {f"{folder}/{name}": data for name, data in files.items()}
        settings = RemoteSettings(
            cache_dir=self._cache, insecure_http=True, lock_path=self._cache / "lock", retries=0
        )
        remote = remote_of_url(self.server.url(f"{folder}/{main}"))
        source = open_source(remote, settings, SILENT)
        return read_checkpoint(source, NAME, file=main, sibling=source.sibling)


def outcome_of(read: Callable[[], Checkpoint]) -> Outcome:
    """Every tensor with its bytes, or why it is refused; or why all of them are."""
    try:
        tensors = read().tensors
    except CollapseAuditError as error:
        return _words(error)
    found: dict[str, Any] = {}
    for key, tensor in tensors.items():
        try:
            values = tensor.read() if tensor.dtype in WIDTHS else None
        except CollapseAuditError as error:
            found[key] = _words(error)
            continue
        if values is None:
            continue
        if 0 not in tensor.shape and values.shape != tensor.shape:
            raise AssertionError(f"{key} is {values.shape} and not {tensor.shape}")
        raw = b"" if 0 in tensor.shape else values.tobytes()
        raw = bytes(map(bool, raw)) if tensor.dtype == "bool" else raw
        found[key] = tensor.dtype, list(tensor.shape), raw
    return found


def _words(error: CollapseAuditError) -> str:
    """A refusal; a missing file is told in other words by each kind of source."""
    missing = type(error) is SourceError
    return "missing" if missing else f"{type(error).__name__}: {error.message}"


@dataclass(slots=True)
class Fuzz:
    """Reads files in every way, compares, and counts."""

    folder: Path
    oracle: Oracle = field(default_factory=Oracle)
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    largest: float = 0.0

    def check(
        self, name: str, files: Files, main: str, kind: str, address: Address | None = None
    ) -> None:
        """Read one checkpoint in every way; note what is wrong."""
        for old in self.folder.iterdir():
            old.unlink()
        for file, data in files.items():
            (self.folder / file).write_bytes(data)

        def sibling(file: str) -> Memory:
            if file not in files:
                raise SourceError("missing")
            return Memory(files[file])

        ways: dict[str, Callable[[], Checkpoint]]
        ways = {"disk": lambda: read_path(self.folder / main, NAME)}
        opened = Memory(files.get(main, b""))
        if main:
            ways["memory"] = lambda: read_checkpoint(opened, NAME, file=main, sibling=sibling)
        if main and address:
            ways["address"] = lambda: address.read(files, main)
        found = {way: self.outcome(f"{name}, {way}", read) for way, read in ways.items()}
        blocks = opened.size // READ_BYTES  # of an index in the middle of a file
        if opened.reads > READS * (1 + len(found["disk"] or ())) + blocks:
            self.failures.append(f"{name}: {opened.reads} reads")
        if len({str(_comparable(outcome)) for outcome in found.values()}) > 1:
            self.failures.append(f"{name}: {found}"[:400])
        self.outcomes[f"{'refused' if isinstance(found['disk'], str) else 'read'} by us"] += 1
        if kind in FOLDERS and isinstance(found["disk"], dict):  # an index that is refused is not
            self.compare(name, pickle.dumps(files), found["disk"], kind)  # shown to others
        elif kind and kind not in FOLDERS and found["disk"] is not None:
            self.compare(name, files[main], found["disk"], kind)

    def outcome(self, name: str, read: Callable[[], Checkpoint]) -> Outcome | None:
        """What one way gives; ``None`` for a failure."""
        began, before = time.process_time(), _peak()
        try:
            with time_limit(), warnings.catch_warnings(action="ignore"):
                result = outcome_of(read)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - that is what is looked for
            self.failures.append(f"{name}: {error!r}"[:400])
            return None
        spent, grown = time.process_time() - began, _peak() - before
        self.slowest, self.largest = max(self.slowest, spent), max(self.largest, grown)
        if spent > SECONDS or grown > MEMORY:
            self.failures.append(f"{name}: {spent:.1f} s, {grown / 1e6:.0f} MB")
        return result

    def compare(self, name: str, data: bytes, ours: Outcome, kind: str) -> None:
        """Hold an outcome against that of another reader."""
        answer = self.oracle.ask(kind, data)
        by = answer["by"] if answer else None
        self.outcomes[
            f"read by {by}" if by else "refused by others" if answer else "no answer"
        ] += 1
        if answer is None or by is None:
            return
        theirs, place = {}, 0
        for key, dtype, shape, size in answer["tensors"]:
            if dtype in WIDTHS:
                theirs[key] = dtype, shape, answer["blobs"][place : place + size]
            place += size
        mine = {} if isinstance(ours, str) else ours
        for key, expected in theirs.items():
            got = ours if isinstance(ours, str) else mine.get(key, "missing")
            if got == expected:
                self.outcomes[f"tensors as in {by}"] += 1
            elif not isinstance(got, str):
                what = f"{_short(got)}, not {_short(expected)}"
                self.oracle.close()  # another process has other bytes in memory not written to
                again = self.oracle.ask(kind, data)
                if not again or again["blobs"] != answer["blobs"]:
                    self.outcomes[f"bytes that {by} makes up"] += 1
                else:
                    self.failures.append(f"{name}: {by}: {key!r}: {what}")
            elif kind in FOLDERS:  # others fill gaps, and convert
                self.outcomes[f"tensors refused that {by} reads"] += 1
            elif 0 not in expected[1]:
                whole = _inflated(data)
                reason = next((r for r, (says, holds) in REASONS.items()
                               if re.search(says, got) and holds in whole), "")  # fmt: skip
                self.outcomes[f"tensors refused that {by} reads: {reason or '?'}"] += 1
                if not reason:
                    what = f"{_short(expected)}, but {got}"
                    self.failures.append(f"{name}: {by}: {key!r}: {what}"[:400])
        if not answer["exotic"]:
            # keys that look alike, of which others keep one, are told apart by a number
            alike = {k: re.sub(r"#\d+", "", k, count=1) for k in mine}
            more = [k for k, got in mine.items()
                    if not {k, alike[k]} & {*theirs} and not isinstance(got, str)]  # fmt: skip
            self.failures += [f"{name}: {by} has no {key!r}" for key in more[:1]]


def fuzz(
    count: int, seed: int, *, files: int = 0, remote: int = 0, start: int = 0
) -> tuple[Counter[str], list[str], str]:
    """Read programs and mutated files; return what came out, the failures and the extremes.

    Args:
        count: Number of programs.
        seed: Of all of them.
        files: Number of mutated files.
        remote: How many of each are also read from an address.
        start: Number of the first.
    """
    events: list[str] = []
    sys.addaudithook(lambda event, _: events.append(event) if event in RUNS_CODE else None)
    marker = Path(tempfile.gettempdir()) / MARKER
    marker.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
        here = Fuzz(Path(folder))
        address = Address(Path(cache)) if remote else None
        for number in range(start, start + count):
            data = program_file(random.Random(f"program {seed}/{number}"))
            far = address if number < start + remote else None
            here.check(f"program {number} of seed {seed}", {"a.pth": data}, "a.pth", "torch", far)
        sound = _sound(here.oracle)
        for number in range(start, start + files):
            draw = random.Random(f"file {seed}/{number}")
            name, main, held, kind = sound[number % len(sound)]
            far = address if number < start + remote else None
            here.check(
                f"{name}, number {number} of seed {seed}", mutated(held, draw), main, kind, far
            )
        here.oracle.close()
        if address:
            address.server.close()
    if events or marker.exists():
        here.failures.append(f"code was run: {events}")
    extremes = f"slowest {here.slowest:.2f} s, {here.largest / 1e6:.0f} MB; "
    return here.outcomes, here.failures, extremes + f"others died {here.oracle.restarts} times"


def _sound(oracle: Oracle) -> list[tuple[str, str, Files, str]]:
    """The files that are to be changed, and who else reads them."""
    answer = oracle.ask("checkpoints") or {}
    others = {"zip": "torch", "zip of protocol 4": "torch", "legacy": "torch", "npy": "numpy",
              "safetensors": "safetensors", "npz": "numpy", "packed npz": "numpy",
              "sharded": "shards", "safetensors of a run": "run", "distributed": "dcp",
              "distributed by torch": "dcp"}  # fmt: skip
    found, place = [], 0
    for name, main, sizes in answer["checkpoints"]:
        files: Files = {}
        for file, size in sizes:
            files[file] = answer["blobs"][place : place + size]
            place += size
        found.append((name, main, files, others.get(name, "")))
    return found


def _inflated(data: bytes) -> bytes:
    """A file, with what its members hold where it is a zip file: they may be deflated."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as members:
            return data + b"".join(map(members.read, members.namelist()))
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, EOFError):
        return data


def _short(tensor: tuple[str, list[int], bytes]) -> str:
    return f"{tensor[0]} {tensor[1]} {tensor[2][:12].hex()}"


def _comparable(outcome: Outcome | None) -> object:
    """An outcome as text that tells two of them apart."""
    return outcome if not isinstance(outcome, dict) else sorted(outcome.items())


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


@contextmanager
def time_limit() -> Iterator[None]:
    """Turn a hang into an error."""

    def stop(*_: Any) -> None:
        raise TimeoutError("no answer after 100 s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(100)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """Parse the arguments, print counts and failures, return 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="programs")
    parser.add_argument("--files", type=int, default=10_000, help="mutated files")
    parser.add_argument("--remote", type=int, default=500, help="read from an address too")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    outcomes, failures, extremes = fuzz(
        options.count, options.seed, files=options.files, remote=options.remote,
        start=options.start,
    )  # fmt: skip
    for outcome, number in sorted(outcomes.items()):
        sys.stdout.write(f"{number:8,}  {outcome}\n")
    for failure in failures:
        sys.stdout.write(f"FAILED  {failure}\n")
    sys.stdout.write(
        f"{options.count:,} programs and {options.files:,} mutated files, seed {options.seed}: "
        f"{len(failures)} failures; {extremes}; {time.monotonic() - began:.0f} s\n"
    )
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
