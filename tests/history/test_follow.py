"""A run is followed while it is written: no half-written file is ever a result."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from collapse_audit import ParameterError, RunHistory
from collapse_audit.history import follow_history, measuring
from tests.history.conftest import KEY, rows_with, write

Step = Callable[[], object]


def content(unique: int, folder: Path) -> bytes:
    return write(folder / "whole.safetensors", unique).read_bytes()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Step]], None]:
    """A clock of our own: each sleep takes a quarter of the time to settle, and does one step."""

    def script(steps: list[Step]) -> None:
        now = [0.0]
        waiting = iter(steps)

        def sleep(seconds: float) -> None:
            now[0] += seconds
            next(waiting, lambda: None)()

        monkeypatch.setattr(measuring.time, "sleep", sleep)
        monkeypatch.setattr(measuring.time, "monotonic", lambda: now[0])

    return script


def known(histories: Iterator[RunHistory]) -> Iterator[dict[str, int | None]]:
    """Each result: the unique prototypes by file, ``None`` for one that is not read whole."""
    for history in histories:
        yield {
            one.file.name: one.heads[0].report["unique"]["greedy"] if one.heads else None
            for one in history.checkpoints
        }


def test_a_file_is_taken_when_it_has_settled(
    tmp_path: Path, clock: Callable[[list[Step]], None]
) -> None:
    run, whole = tmp_path / "run", content(40, tmp_path)
    run.mkdir()
    file = run / "checkpoint1.safetensors"
    sizes: list[int] = []

    def grow() -> None:
        """A tenth more: the writer is slow, but never silent for long."""
        sizes.append(len(whole) * (len(sizes) + 1) // 10)
        file.write_bytes(whole[: sizes[-1]])

    clock([grow] * 10)
    results = known(follow_history(run, settle=4.0, idle=40.0))
    assert next(results) == {"checkpoint1.safetensors": 40}
    assert sizes[-1] == len(whole)
    assert list(results) == []


def test_a_writer_that_is_killed_and_restarted_gives_no_truncated_result(
    tmp_path: Path, clock: Callable[[list[Step]], None]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    first, second, third = (content(unique, tmp_path) for unique in (40, 30, 20))

    def at(number: int, data: bytes) -> Step:
        return lambda: (run / f"checkpoint{number}.safetensors").write_bytes(data)

    def nothing() -> None:
        pass

    killed = [at(1, first), at(2, second[:1500]), *[nothing] * 20]
    restarted = [at(2, second[:700]), at(2, second), at(3, third[:-1]), at(3, third)]
    clock([*killed, *restarted])
    names = [f"checkpoint{number}.safetensors" for number in (1, 2, 3)]
    results = list(known(follow_history(run, settle=4.0, idle=100.0)))
    truth = dict(zip(names, (40, 30, 20), strict=True))
    assert all(found in (None, truth[name]) for one in results for name, found in one.items())
    assert results[-1] == truth
    assert {names[0]: 40, names[1]: None} in results, "the half of a killed writer is a problem"


def test_the_last_checkpoint_is_audited_again_when_it_is_overwritten(
    tmp_path: Path, clock: Callable[[list[Step]], None]
) -> None:
    file = write(tmp_path / "run" / "checkpoint.safetensors", 40)
    newer = content(30, tmp_path)
    clock([*[lambda: None] * 8, lambda: file.write_bytes(newer)])
    results = list(known(follow_history(tmp_path / "run", settle=4.0, idle=40.0)))
    assert results == [{file.name: 40}, {file.name: 30}]


def test_a_run_that_is_not_there_yet_is_waited_for(
    tmp_path: Path, clock: Callable[[list[Step]], None]
) -> None:
    clock([*[lambda: None] * 5, lambda: write(tmp_path / "run" / "step1.safetensors", 40)])
    results = list(known(follow_history(tmp_path / "run", settle=4.0, idle=40.0)))
    assert results == [{"step1.safetensors": 40}]
    with pytest.raises(ParameterError, match="settle must be above 0"):
        next(follow_history(tmp_path, settle=0))


WRITER = """
import os, sys, time
from pathlib import Path

folder, source, start = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
for number in range(start, 5):
    data = (source / f"{number}.pth").read_bytes()
    with (folder / f"checkpoint{number:04d}.pth").open("wb", buffering=0) as file:
        for at in range(0, len(data), 997):
            file.write(data[at : at + 997])
            if number == 2 and start == 0 and at > len(data) // 2:
                print("half", flush=True)
                time.sleep(600)
"""


def test_the_command_follows_a_process_that_is_killed_in_the_middle_of_a_file(
    tmp_path: Path, repository: Path
) -> None:
    run, source, output = tmp_path / "run", tmp_path / "source", tmp_path / "history.json"
    run.mkdir()
    source.mkdir()
    truth = [64, 60, 50, 40, 30]
    for number, unique in enumerate(truth):
        torch.save({KEY: torch.from_numpy(rows_with(unique))}, source / f"{number}.pth")
    command = [sys.executable, "-m", "collapse_audit", "history", str(run), "--follow",
               "--settle", "0.2", "-o", str(output)]  # fmt: skip
    writer = [sys.executable, "-c", WRITER, str(run), str(source)]
    with subprocess.Popen(command, cwd=repository, stderr=subprocess.PIPE, text=True) as follower:
        with subprocess.Popen([*writer, "0"], stdout=subprocess.PIPE) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == b"half\n"
            first.kill()
        # the half is there for good, for all that the follower knows
        assert problems(output, lambda found: len(found["problems"]) == 1)
        subprocess.run([*writer, "2"], check=True)
        found = problems(output, lambda found: not found["problems"] and len(points(found)) == 5)
        follower.send_signal(signal.SIGINT)
        _, told = follower.communicate(timeout=60)
    assert follower.returncode == 130
    assert points(found) == truth
    assert "note: checkpoint0004.pth: head: M = 30 of 64" in told
    assert "Traceback" not in told


def points(found: dict) -> list[int]:
    heads = found["heads"]
    return [p["head"]["unique"]["greedy"] for p in heads[0]["points"]] if heads else []


def problems(output: Path, enough: Callable[[dict], bool]) -> dict:
    """What the file says when it says enough; every state on the way is a whole one."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if output.exists():
            found = json.loads(output.read_text(encoding="utf-8"))
            assert set(points(found)) <= {64, 60, 50, 40, 30}
            if enough(found):
                return found
        time.sleep(0.05)
    raise AssertionError(output.read_text(encoding="utf-8") if output.exists() else "nothing")
