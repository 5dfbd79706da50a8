"""`history` on the command line: formats, figures, exit codes, and the gate on runs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from collapse_audit import ParameterError, audit_history, check, plot_history
from collapse_audit.cli import main
from collapse_audit.gate.thresholds import parse_threshold
from collapse_audit.pytest_plugin import assert_no_collapse
from collapse_audit.report.schema import document_schema
from tests.history.conftest import Plant, write

COUNTS = [64, 64, 62, 40, 24, 20]


@pytest.fixture
def run(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "collapse-audit.toml").write_text("[check]\n", encoding="utf-8")
    return plant(COUNTS, "epoch{}.safetensors").name


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main([*arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_table_shows_the_course_the_onset_and_the_merges(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "history", run)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "run: 6 checkpoints, epsilon 0.025"
    assert "M / K  ███▆▄▃" in lines
    flat = " ".join(out.split())
    assert "The collapse began at epoch 3: M / K falls below 0.9 times its largest so far" in flat
    assert [line.split()[:3] for line in lines if line.endswith("onset")] == [["3", "64", "40"]]
    (merge,) = [line.split(maxsplit=4) for line in lines if line.split()[:2] == ["2", "3"]]
    assert merge[2:] == [
        "1",
        "25",
        "25 from 23 groups (3, 1, 1, 1, ...): 0, 40, 41, 42, ...",
    ]
    assert all(len(line) <= 100 for line in lines)


def test_every_format_has_the_same_numbers(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(call(capsys, "history", run, "--json")[1])
    assert document["schema"] == "collapse-audit/history"
    jsonschema.validate(document, document_schema("history"))
    (head,) = document["heads"]
    assert [p["head"]["unique"]["greedy"] for p in head["points"]] == COUNTS
    assert head["onset"] == "epoch3.safetensors"
    assert [m["prototypes"] for m in head["merges"]] == [3, 25, 41, 45]
    rows = list(csv.DictReader(io.StringIO(call(capsys, "history", run, "--format", "csv")[1])))
    assert [(row["number"], row["unit"], row["unique"]) for row in rows] == [
        (str(at), "epoch", str(m)) for at, m in enumerate(COUNTS)
    ]
    assert call(capsys, "history", run, "-o", "run.html")[0] == 0
    page = Path("run.html").read_text(encoding="utf-8")
    assert "The collapse began at epoch 3" in page
    assert page.count("<polyline") == 4
    assert "<script" not in page
    for name, start in (("run.png", b"\x89PNG"), ("run.pdf", b"%PDF"), ("run.svg", b"<?xml")):
        assert call(capsys, "history", run, "--figure", name)[0] == 0
        assert Path(name).read_bytes().startswith(start)


def test_names_out_of_files_are_inert_in_every_format(
    plant: Plant,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    plant([64, 30], "=1+<b>\x1b[31m{}.safetensors", folder="<i>run")
    out = [call(capsys, "history", "<i>run", "--format", form)[1] for form in ("csv", "html")]
    assert "\x1b" not in "".join(out)
    assert "'=1+" in out[0]
    assert "<b>" not in out[1]
    assert "<i>" not in out[1]
    assert "\x1b" not in call(capsys, "history", "<i>run")[1]


def test_a_damaged_checkpoint_costs_the_exit_code_only_when_that_is_asked_for(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(run, "epoch1.safetensors").write_bytes(b"{")
    code, out, _ = call(capsys, "history", run)
    assert code == 0
    assert out.startswith("run: 6 checkpoints, 1 skipped, epsilon 0.025\n")
    assert "skipped: epoch1.safetensors: JSON, but not" in out
    assert str(Path.cwd()) not in out
    assert call(capsys, "history", run, "--strict")[0] == 2
    assert call(capsys, "history", run, "--json")[1].count('"type": "CheckpointError"') == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["empty"], "empty: holds no checkpoint."),
        (["absent.pth"], "absent.pth: no such file."),
        (["*.pth"], "*.pth: matches no checkpoint."),
        (["run", "--jobs", "0"], "jobs must be at least 1, got 0."),
        (["run", "--figure", "run.txt"], "--figure: run.txt: is none of .png, .svg, .pdf."),
        (["run", "-o", "run/epoch0.safetensors"], "this command writes no .safetensors"),
        (["empty", "--follow", "--settle", "0.01", "--idle", "0.05"], "no checkpoint came."),
    ],
)
@pytest.mark.usefixtures("run")
def test_what_cannot_be_done_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    Path("empty").mkdir()
    code, out, err = call(capsys, "history", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


# --- the figure ----------------------------------------------------------------------------------


def test_the_figure_shows_shares_of_k_and_marks_the_onset(run: str) -> None:
    ax = plot_history(audit_history(run))
    drawn = {line.get_label(): np.asarray(line.get_xydata()) for line in ax.get_lines()}
    assert drawn["unique, M / K"].tolist() == [[at, m / 64] for at, m in enumerate(COUNTS)]
    assert drawn["largest group, r / K"][-1].tolist() == [5, 45 / 64]
    assert drawn["onset: epoch 3"][0, 0] == 3
    assert ax.get_xlabel() == "epoch"
    with pytest.raises(ParameterError, match="takes the history of a run; got int"):
        plot_history(3)  # type: ignore[arg-type]


# --- the gate ------------------------------------------------------------------------------------


def test_check_takes_the_newest_checkpoint_of_a_run(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for source in (run, f"{run}/epoch*.safetensors"):
        code, out, _ = call(capsys, "check", source, "--fail-on", "M<21", "--json")
        verdict = json.loads(out)
        assert code == 1
        assert verdict["source"].endswith("epoch5.safetensors")
        assert verdict["checks"][0]["value"] == 20
    assert check(run, thresholds=["M<20"]).passed


@pytest.mark.parametrize(
    ("threshold", "status", "values", "limit"),
    [
        ("trend.unique_fraction:-5%", "failed", (62 / 64, 40 / 64), ">= 0.920312 at epoch 3"),
        ("trend.M:-2", "failed", (62, 40), ">= 60 at epoch 3"),
        ("trend.M:-22", "passed", (24, 20), ">= 2 at epoch 5"),
        ("trend.r_max:+0", "failed", (1, 3), "<= 1 at epoch 2"),
    ],
)
def test_a_limit_on_the_trend_holds_between_all_neighbours(
    run: str, threshold: str, status: str, values: tuple[float, float], limit: str
) -> None:
    (found,) = check(run, thresholds=[threshold], run=audit_history(run)).checks
    assert (found.threshold, found.status, found.limit) == (threshold, status, limit)
    assert (found.baseline, found.value) == values


def test_the_trend_is_checked_on_the_command_line_beside_other_limits(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trend = ("--fail-on", "trend.unique_fraction:-5%")
    code, out, _ = call(capsys, "check", run, *trend, "--fail-on", "M<10")
    assert code == 1
    assert "1 of 2 checks failed" in out
    failed = out.splitlines()[1].split(maxsplit=5)
    assert failed[0] == "FAILED"
    assert failed[5] == ">= 0.920312 at epoch 3"
    one = f"{run}/epoch0.safetensors"
    code, out, _ = call(capsys, "check", one, *trend)
    assert (code, out.splitlines()[-1]) == (
        0,
        "nothing was compared, 1 skipped for want of a baseline",
    )
    assert call(capsys, "check", "demo", *trend)[0] == 2


def test_a_change_of_k_is_no_trend(run: str) -> None:
    write(Path(run) / "epoch6.safetensors", 5, 32)
    (found,) = check(run, thresholds=["trend.M:-22"], run=audit_history(run)).checks
    assert (found.status, found.value) == ("passed", 20)


def test_a_trend_without_a_run_is_refused() -> None:
    with pytest.raises(ParameterError, match="compares neighbouring checkpoints, and there is no"):
        check("demo", thresholds=["trend.M:-5%"])
    for wrong in ("trend.M<5", "trend.", "trend.trend.M:-1", "trend:-1"):
        with pytest.raises(ParameterError):
            parse_threshold(wrong)


def test_the_plugin_takes_a_run_and_limits_on_its_trend(run: str) -> None:
    options: dict[str, Any] = {"min_unique_fraction": 0.1}
    assert assert_no_collapse(run, **options).num_unique == 20
    passing = assert_no_collapse(f"{run}/*.safetensors", fail_on=["trend.M:-22"], **options)
    assert passing.num_unique == 20
    with pytest.raises(pytest.fail.Exception, match=r"trend.M:-10 .* >= 52 at epoch 3"):
        assert_no_collapse(run, fail_on=["trend.M:-10"], **options)
