"""`compare` on the command line: heads side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from collapse_audit.cli.commands.compare import compare_command
from tests.gate.conftest import Run


def compared(run: Run, *arguments: str) -> dict[str, Any]:
    ran = run(*arguments, "--json", command=compare_command)
    assert ran.code == 0, ran.error
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


def test_compare_shows_deltas_and_what_was_merged(run: Run, good: str, bad: str) -> None:
    document = compared(run, good, bad)
    assert document["sources"] == [good, bad]
    (head,) = document["heads"]
    rows = {row["metric"]: row for row in head["metrics"]}
    assert rows["unique.greedy"] == {
        "metric": "unique.greedy",
        "values": [20, 12],
        "deltas": [-8],
        "judgements": ["worse"],
    }
    (found,) = head["regroupings"]
    assert (found["merged"], found["split"], found["unchanged"]) == (1, 0, 11)
    assert found["merges"] == [{"group": 0, "parts": [1] * 9}]
    assert found["pairs"] == {"kept": 0, "parted": 0, "joined": 36}


@pytest.mark.parametrize("form", ["table", "csv", "markdown"])
def test_compare_of_three_shows_every_value_in_every_format(
    run: Run, good: str, bad: str, baseline: str, form: str
) -> None:
    ran = run(good, bad, baseline, "--format", form, command=compare_command)
    assert ran.code == 0
    lines = [line for line in ran.stdout.splitlines() if "unique.greedy" in line]
    rows = [line.replace("|", " ").split() for line in lines]
    first, b, c = ["unique.greedy", "20"], ["12", "-8", "worse"], ["20", "0", "same"]
    if form == "csv":
        assert lines[:2] == [
            "head,,unique.greedy,good.safetensors,20,,",
            "head,,unique.greedy,bad.safetensors,12,-8,worse",
        ]
    elif form == "markdown":
        assert rows == [[*first, *b, *c]]
    else:
        assert rows == [[*first, *b], [*first, *c]], "as wide as a terminal of 100 columns"


@pytest.mark.parametrize("columns", [80, 120, 300])
def test_compare_of_ten_files_is_as_wide_as_the_terminal(
    run: Run, good: str, bad: str, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    longest = "x" * 200 + ".safetensors"
    Path(bad).rename(longest)
    ran = run(good, *[longest] * 9, command=compare_command)
    lines = ran.stdout.splitlines()
    assert columns / 2 < max(map(len, lines)) <= columns
    greedy = [line.split() for line in lines if line.startswith("unique.greedy")]
    assert all(row[:2] == ["unique.greedy", "20"] for row in greedy)
    assert [cell for row in greedy for cell in row[2:]] == ["12", "-8", "worse"] * 9
    titles = [line.split() for line in lines if line.startswith("metric")]
    others = [title for row in titles for title in row[2::4]]  # B, and B - A beside it
    assert others == list("BCDEFGHIJ")


def test_the_heads_of_two_files_are_chosen_one_by_one(run: Run, tmp_path: Path) -> None:
    eye = np.eye(6, 8, dtype=np.float32)
    rows = eye[[0, 0, 1, 2, 3, 4]]
    for file, name in (("one", "x"), ("two", "z")):
        tensors = {f"{name}.last_layer.weight": eye, "y.last_layer.weight": rows}
        save_file(tensors, tmp_path / f"{file}.safetensors")
    files = ("one.safetensors", "two.safetensors")
    for heads, expected in ((("x", "y"), (6, 5)), (("y",), (5, 5))):
        options = [word for head in heads for word in ("--head", head)]
        ran = run(*files, *options, "--json", command=compare_command)
        (head,) = json.loads(ran.stdout)["heads"]
        row = next(row for row in head["metrics"] if row["metric"] == "unique.greedy")
        assert tuple(row["values"]) == expected
    assert (
        "3 names for 2 sources" in run(*files, *["--head", "y"] * 3, command=compare_command).error
    )
    assert "needs two sources" in run(files[0], command=compare_command).error


def test_a_report_and_a_checkpoint_come_through_a_pipe(
    run: Run, good: str, bad: str, baseline: str
) -> None:
    for name, regrouped in ((bad, True), (baseline, False)):
        ran = run(good, "-", "--json", command=compare_command, stdin=Path(name).read_bytes())
        document = json.loads(ran.stdout)
        assert document["sources"] == [good, "stdin" if regrouped else good]
        (head,) = document["heads"]
        assert (head["regroupings"] != [None]) == regrouped
