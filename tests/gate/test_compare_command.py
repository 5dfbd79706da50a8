"""`compare` on the command line: heads side by side."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
    line = next(line for line in ran.stdout.splitlines() if "unique.greedy" in line)
    if form == "csv":
        assert line == "head,,unique.greedy,good.safetensors,20,,"
        assert "head,,unique.greedy,bad.safetensors,12,-8,worse" in ran.stdout.splitlines()
    else:
        cells = line.replace("|", " ").split()
        assert cells == ["unique.greedy", "20", "12", "-8", "worse", "20", "0", "same"]
