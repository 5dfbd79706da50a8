"""`compare` on the command line: heads side by side."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from collapse_audit.cli import main
from collapse_audit.cli.commands.compare import compare_command
from collapse_audit.report.schema import document_schema
from tests.gate.conftest import Run, save_head


def compared(run: Run, *arguments: str) -> dict[str, Any]:
    ran = run(*arguments, "--json", command=compare_command)
    assert ran.code == 0, ran.error
    document: dict[str, Any] = json.loads(ran.stdout)
    jsonschema.validate(document, document_schema("comparison"))
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
    assert ran.error.endswith("Choose one with `head=NAME`, or say `pair=NAME=NAME`.")
    assert paired(compared(run, a, b, "--pair", "ibot_head=z_head"))
    ran = run(a, b, "--pair", "ibot_head=w", command=compare_command)
    assert ran.error == f"{b}: has no head 'w'. It has: x_head, y_head, z_head."
    ran = run(a, b, b, "--pair", "ibot_head=z_hed", command=compare_command)
    assert ran.error == f"{b}, {b}: has no head 'z_hed'. Did you mean z_head or y_head or x_head?"
    # a mistyped partner is not replaced by the head of the same name
    ran = run(a, a, "--pair", "ibot_head=dino_hed", command=compare_command)
    assert ran.error == f"{a}: has no head 'dino_hed'. Did you mean dino_head or ibot_head?"
    assert "--pair must be NAME=NAME" in run(a, b, "--pair", "w", command=compare_command).error


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


# --- matching ------------------------------------------------------------------------------------


def matched(document: dict[str, Any]) -> list[dict[str, Any]]:
    (head,) = document["heads"]
    found: list[dict[str, Any]] = head["matchings"]
    return found


def test_a_head_in_another_order_is_matched_with_itself(run: Run, good: str, bad: str) -> None:
    rows = load_file(good)["head.last_layer.weight"]
    order = np.random.default_rng(0).permutation(len(rows))
    save_file(
        {"head.last_layer.weight": np.ascontiguousarray(rows[order][:15])}, "other.safetensors"
    )
    document = compared(run, good, "other.safetensors", bad, "--match", "optimal")
    assert document["among"] == "all"
    other, collapsed = matched(document)
    assert other["k"] == [20, 15]
    assert other["pw_mcc"] == pytest.approx(1)
    assert other["mean_max_cosine"][0] < other["mean_max_cosine"][1] == pytest.approx(1)
    # of 20 prototypes 12 are unique, the first of those is the first of the good head too
    assert collapsed["k"] == [20, 20]
    assert collapsed["pair_cosine"]["max"] == pytest.approx(1)
    document = compared(run, good, bad, "--match", "greedy", "--among", "unique")
    assert document["among"] == "unique"
    (found,) = matched(document)
    assert found["k"] == [20, 12]
    assert (found["pw_mcc"], found["pair_cosine"]) == (None, None)
    assert found["mean_max_cosine"][1] == pytest.approx(1)


def test_a_matching_is_said_in_every_format_and_nothing_where_none_is_asked_for(
    run: Run, good: str, bad: str
) -> None:
    for form in ("table", "markdown", "csv", "json"):
        plain = run(good, bad, "--format", form, command=compare_command).stdout
        text = run(
            good, bad, "--match", "optimal", "--format", form, command=compare_command
        ).stdout
        assert "match" not in plain
        assert "PW-MCC" not in plain
        if form == "csv":
            assert text.startswith(plain)
            rows = [line.split(",")[2:4] for line in text[len(plain) :].splitlines()]
            assert rows == [[f"matching.{name}", bad] for name in ("from_a", "to_a", "pw_mcc")]
        elif form != "json":
            assert "Prototypes of A (20) and B (20): mean cosine to the nearest in B" in text
            words = " ".join(text.split())
            assert "over 20 pairs (cosines " in words
            assert "without a partner: 0 of A, 0 of B." in words


def test_what_cannot_be_matched_is_refused_in_one_line(
    run: Run,
    good: str,
    baseline: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    narrow = str(save_head(Path("narrow.safetensors"), [1] * 20, d=8))
    ran = run(good, narrow, "--match", "greedy", command=compare_command)
    assert ran.error.startswith("prototypes in 16 and in 8 dimensions cannot be matched.")
    ran = run(good, baseline, "--match", "greedy", command=compare_command)
    assert ran.error.startswith("a saved report does not hold the prototypes")
    assert ran.code == 2
    monkeypatch.setattr("collapse_audit.matching.MOST_PAIRS", 399)
    assert run(good, good, "--match", "greedy", command=compare_command).code == 0
    assert main(["compare", good, good, "--match", "optimal"]) == 2
    assert "Say --match greedy, which needs no matrix." in capsys.readouterr().err


def test_the_partners_are_written_to_a_file(run: Run, good: str) -> None:
    rows = load_file(good)["head.last_layer.weight"]
    other = str(Path("other.safetensors"))
    save_file({"head.last_layer.weight": np.ascontiguousarray(rows[::-1][:18])}, other)
    for how, pairs in (("optimal", 2), ("greedy", 1)):
        ran = run(
            *(good, other, good, "--match", how, "--match-file", "m.csv"), command=compare_command
        )
        assert ran.code == 0, ran.error
        with Path("m.csv").open(encoding="utf-8", newline="") as file:
            written = list(csv.DictReader(file))
        columns = ["nearest", "nearest_cosine", "partner", "partner_cosine"][: 2 * pairs]
        assert list(written[0]) == ["source", "head", "branch", "prototype", *columns]
        assert [row["source"] for row in written] == [other] * 20 + [good] * 20
        assert [int(row["prototype"]) for row in written] == [*range(20)] * 2
        assert [int(row["nearest"]) for row in written[2:20]] == [*range(17, -1, -1)]
        assert [int(row["nearest"]) for row in written[20:]] == [*range(20)]
        if how == "optimal":
            partners = [(int(row["partner"]), float(row["partner_cosine"])) for row in written[:20]]
            assert [partner for partner, _ in partners] == [-1, -1, *range(17, -1, -1)]
            assert [np.isnan(cosine) for _, cosine in partners] == [True] * 2 + [False] * 18


def test_a_file_of_partners_is_refused_before_the_work(run: Run, good: str) -> None:
    ran = run(good, good, "--match-file", "m.csv", command=compare_command)
    assert ran.error == "--match-file needs --match."
    ran = run(good, good, "--among", "unique", command=compare_command)
    assert ran.error == "--among needs --match."
    options = ("--match", "greedy", "--match-file")
    assert "the source itself" in run(good, good, *options, good, command=compare_command).error
    ran = run(good, good, *options, "absent/m.csv", command=compare_command)
    assert ran.error.startswith("--match-file: there is no folder absent.")
    assert "m.npy: is no .csv" in run(good, good, *options, "m.npy", command=compare_command).error
