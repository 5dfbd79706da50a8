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


def save_heads(path: Path, **copies: list[int]) -> str:
    """A file of several heads, each with a K of its own."""
    rows = np.eye(16, dtype=np.float32)
    heads = {name: np.repeat(rows[: len(r)], r, axis=0) for name, r in copies.items()}
    save_file({f"teacher.{name}.last_layer.weight": w for name, w in heads.items()}, path)
    return path.name


def paired(document: dict[str, Any]) -> dict[str, tuple[list[str], list[int]]]:
    """Of every head: the names in the other files, and K in all."""
    return {
        head["name"]: (head["partners"], head["metrics"][0]["values"]) for head in document["heads"]
    }


def test_heads_of_other_names_are_compared_in_their_order_or_as_asked(
    run: Run, tmp_path: Path
) -> None:
    a = save_heads(tmp_path / "a.safetensors", dino_head=[3, 1], ibot_head=[4, 2])
    b = save_heads(tmp_path / "b.safetensors", cls_head=[5, 1], patch_head=[6, 1])
    c = save_heads(tmp_path / "c.safetensors", ibot_head=[7, 1], other_head=[8, 1])
    document = compared(run, a, b, c)
    assert paired(document) == {
        "dino_head": (["cls_head", "other_head"], [4, 6, 9]),
        "ibot_head": (["patch_head", "ibot_head"], [6, 7, 8]),
    }
    table = run(a, b, c, command=compare_command).stdout
    assert "\ndino_head, teacher (B: cls_head, C: other_head)\n" in table
    markdown = run(a, b, "--format", "markdown", command=compare_command).stdout
    assert "\n## dino_head, teacher (B: cls_head)\n" in markdown
    document = compared(run, a, b, "--pair", "dino_head=patch_head")
    assert paired(document) == {"dino_head": (["patch_head"], [4, 7])}
    document = compared(run, a, b, c, "--pair", "ibot_head=cls_head")
    assert paired(document) == {"ibot_head": (["cls_head", "ibot_head"], [6, 6, 8])}


def test_heads_that_cannot_be_paired_are_refused_with_the_option(run: Run, tmp_path: Path) -> None:
    a = save_heads(tmp_path / "a.safetensors", dino_head=[3, 1], ibot_head=[4, 2])
    b = save_heads(tmp_path / "b.safetensors", x_head=[5, 1], y_head=[6, 1], z_head=[2, 2])
    ran = run(a, b, command=compare_command)
    assert ran.code == 2
    assert (
        "do not hold the same heads: dino_head (teacher), ibot_head (teacher), x_head" in ran.error
    )
    assert ran.error.endswith("Choose one with --head, or say --pair NAME=NAME.")
    assert paired(compared(run, a, b, "--pair", "ibot_head=z_head"))
    ran = run(a, b, "--pair", "ibot_head=w", command=compare_command)
    assert ran.error == f"{b}: has no head 'w'. It has: x_head, y_head, z_head."
    assert "--pair must be NAME=NAME" in run(a, b, "--pair", "w", command=compare_command).error


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
