"""A run is audited whole, each checkpoint once, and what is wrong with it is said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from collapse_audit import NoPrototypesError, ParameterError, SourceError, audit, audit_history
from collapse_audit.history import find_onset, measuring
from collapse_audit.remote.maintenance import clear_cache
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.run import run_training
from tests.history.conftest import D, K, Plant, rows_with, write

ONSET = 17
COLLAPSING = [K] * ONSET + [max(4, K - 8 * n) for n in range(1, 41 - ONSET)]


def counts(history: Any) -> list[int]:
    return [state.report["unique"]["greedy"] for _, state in history.heads[0].points]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every head that is measured and not answered from what is kept."""
    sources: list[str] = []
    measure = measuring.audit_prototypes

    def counting(prototypes: Any, **options: Any) -> Any:
        sources.append(prototypes.source)
        return measure(prototypes, **options)

    monkeypatch.setattr(measuring, "audit_prototypes", counting)
    return sources


def test_a_planted_collapse_is_found_where_it_began(plant: Plant) -> None:
    run = plant(COLLAPSING)
    history = audit_history(run)
    assert len(history.checkpoints) == 40
    assert counts(history) == COLLAPSING
    (head,) = history.heads
    assert head.onset is not None
    assert head.onset.number == ONSET
    before, after, merges = next(head.merges())
    assert (before.number, after.number) == (ONSET - 1, ONSET)
    assert merges[0].prototypes.tolist() == [0, *range(K - 8, K)]
    assert merges[0].parts == (1,) * 9
    each = audit(run / "checkpoint0020.safetensors", sweep=False)
    assert history.heads[0].points[20][1].report == each.head_report()


@pytest.mark.slow
def test_a_run_of_the_bundled_trainer_shows_the_onset_of_its_log(tmp_path: Path) -> None:
    config = HeadTrainingConfig(
        k=96, d=16, hidden=32, iterations=800, audit_every=20, keep_every=20, save_every=800,
        batch_size=16, limit=300, pool=2, prototype_lr_factor=30.0,
    )  # fmt: skip
    run_training(config, tmp_path / "run", quiet=True)
    lines = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    logged = [json.loads(line)["unique"] for line in lines]
    history = audit_history(tmp_path / "run")
    assert counts(history) == [96, *logged]  # and the head at the end, which repeats the last one
    planted = find_onset([m / 96 for m in counts(history)])
    assert planted is not None
    assert history.heads[0].onset is not None
    assert history.heads[0].onset.number == 20 * planted


def test_a_second_call_reads_nothing_and_says_the_same(
    plant: Plant, bytes_read: list[int], measured: list[str]
) -> None:
    run = plant(COLLAPSING)
    first = audit_history(run).to_json()
    assert sum(bytes_read) > 40 * 4 * K * D
    assert len(measured) == 40 - COLLAPSING.count(K) + 1 - (COLLAPSING.count(4) - 1)
    bytes_read.clear()
    measured.clear()
    assert audit_history(run, jobs=3).to_json() == first
    assert sum(bytes_read) == 0
    assert measured == []
    assert audit_history(run, reuse=False).to_json() == first
    assert len(measured) == 40


def test_content_decides_and_not_the_name(
    plant: Plant, tmp_path: Path, bytes_read: list[int], measured: list[str]
) -> None:
    run = plant([60, 50, 40])
    audit_history(run)
    measured.clear()
    shutil.copytree(run, tmp_path / "copy")
    bytes_read.clear()
    assert counts(audit_history(tmp_path / "copy")) == [60, 50, 40]
    assert measured == []
    assert sum(bytes_read) >= 3 * 4 * K * D, "read, to prove that they are the same"
    # of the same size and time, with other content
    path = run / "checkpoint0001.safetensors"
    times = path.stat()
    write(path, 30)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert counts(audit_history(run)) == [60, 30, 40]
    assert len(measured) == 1


def test_another_question_is_another_answer(plant: Plant, measured: list[str]) -> None:
    run = plant([60, 50])
    for options in ({}, {"epsilon": 0.3}):
        assert audit_history(run, **options).epsilon == options.get("epsilon", 0.025)
    assert len(measured) == 4


def test_clearing_the_cache_clears_the_answers(plant: Plant, measured: list[str]) -> None:
    run = plant([60, 50])
    for _ in range(2):
        audit_history(run)
        assert clear_cache(RemoteSettings.from_environment()) > 0
    assert len(measured) == 4


def test_damaged_answers_are_found_again(plant: Plant, tmp_path: Path) -> None:
    run = plant([60, 50])
    first = audit_history(run).to_json()
    kept = sorted((tmp_path / "cache" / "history").rglob("*.json"))
    assert len(kept) == 4
    for damage in (b"", b"{}", b'{"heads": 3, "state": []}', b'{"head": {}, "groups": "x"}'):
        for path in kept:
            path.write_bytes(damage)
        assert audit_history(run).to_json() == first
    groups = json.loads(kept[0].read_text("utf-8")) | {"groups": ""}
    kept[0].write_text(json.dumps(groups), "utf-8")
    assert audit_history(run).to_json() == first


def test_a_cache_that_cannot_be_written_costs_the_answers_only(
    plant: Plant, tmp_path: Path
) -> None:
    run = plant([60, 50])
    (tmp_path / "cache").touch()
    assert counts(audit_history(run)) == [60, 50]


# --- bad input -----------------------------------------------------------------------------------


def test_one_damaged_file_among_forty_is_told_and_skipped(plant: Plant) -> None:
    run = plant(COLLAPSING)
    path = run / "checkpoint0005.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    history = audit_history(run)
    (problem,) = history.problems
    assert problem.file.name == "checkpoint0005.safetensors"
    assert str(problem.problem).startswith("checkpoint0005.safetensors: a damaged or truncated")
    assert counts(history) == COLLAPSING[:5] + COLLAPSING[6:]
    assert history.heads[0].onset is not None


def test_a_run_of_which_nothing_can_be_read_is_an_error(plant: Plant) -> None:
    run = plant([60, 50])
    for path in run.iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(SourceError, match="run: none of 2 can be audited"):
        audit_history(run)


def test_k_may_change_and_the_onset_is_looked_for_behind_the_change(plant: Plant) -> None:
    plant([64, 64, 20, 20])
    for number, unique in ((4, 32), (5, 32), (6, 9)):
        path = plant([]).joinpath(f"checkpoint{number:04d}.safetensors")
        write(path, unique, 32)
    (head,) = audit_history(path.parent).heads
    assert head.onset is not None
    assert head.onset.number == 6
    assert [after.number for _, after, _ in head.merges()] == [2, 6]
    (note,) = head.notes
    assert note.startswith("K is 32 from checkpoint 4 on and was 64 before")


def test_a_head_that_comes_later_and_one_that_goes_are_said(tmp_path: Path) -> None:
    for number, names in enumerate((["dino"], ["dino", "ibot"], ["dino", "ibot"], ["ibot"])):
        rows = {f"{name}_head.last_layer.weight": rows_with(60) for name in names}
        save_file(rows, tmp_path / f"step{number}.safetensors")
    save_file({"backbone.norm.weight": rows_with(3)[0]}, tmp_path / "step4.safetensors")
    history = audit_history(tmp_path)
    dino, ibot = history.heads
    assert [len(head.points) for head in (dino, ibot)] == [3, 3]
    said = "1 of the audited checkpoints without this head; the first that has it is step"
    assert [head.notes[-1] for head in (dino, ibot)] == [f"{said} 0", f"{said} 1"]
    assert [one.file.label for one in history.problems] == ["step 4"]
    assert isinstance(history.problems[0].problem, NoPrototypesError)


@pytest.mark.parametrize("wrong", [{"jobs": 0}, {"onset_share": 1.0}, {"epsilon": 2.0}])
def test_numbers_out_of_range_are_refused(plant: Plant, wrong: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        audit_history(plant([60]), **wrong)


# --- kills ---------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from collapse_audit import audit_history
from tests.kills import Operations

run, cache, kill_at = sys.argv[1:]
Operations(Path(cache), int(kill_at))
audit_history(run)
"""


@pytest.mark.parametrize("kill_at", [3, 21, 40])
def test_a_call_that_is_killed_loses_nothing_that_was_done(
    plant: Plant, tmp_path: Path, repository: Path, measured: list[str], kill_at: int
) -> None:
    run = plant(list(range(K, K - 12, -1)))
    command = [sys.executable, "-c", CHILD, str(run), str(tmp_path / "cache"), str(kill_at)]
    killed = subprocess.run(command, check=False, cwd=repository, timeout=120)
    assert killed.returncode == -9
    kept = list((tmp_path / "cache" / "history" / "answers").glob("[!.]*.json"))
    assert len(kept) < 12
    assert kept or kill_at == 3
    history = audit_history(run)
    assert counts(history) == list(range(K, K - 12, -1))
    assert len(measured) == 12 - len(kept)
    expected = np.bincount(history.heads[0].points[-1][1].groups)
    assert expected.tolist() == [12, *[1] * (K - 12)]
