"""What an audit prints."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import jsonschema
import pytest

from collapse_audit.report.schema import report_schema
from tests.cli.conftest import Run


@pytest.fixture
def student_only(folder: Path) -> str:
    """A checkpoint without a teacher: audited, with a note."""
    import torch

    weight = torch.eye(6, 8)
    torch.save({"student": {"head.last_layer.weight": weight}}, folder / "student.pth")
    return "student.pth"


def test_every_format_prints_the_same_audit(run: Run, head: str) -> None:
    report = json.loads(run(head, "--format", "json")[1])
    jsonschema.Draft202012Validator(report_schema()).validate(report)
    assert report["source"]["spec"] == head
    assert report["heads"][0]["unique"] == {
        "greedy": 5,
        "components": 5,
        "isolated": 1,
        "n_eff": 5.0,
        "n_eff_interval": None,
        "bracket": [5, 5],
        "order_range": None,
        "definition_independent": True,
    }
    assert report["heads"][0]["redundancy_factors"]["top"] == [5, 4, 3, 2, 1]
    (row,) = csv.DictReader(io.StringIO(run(head, "--format", "csv")[1]))
    assert (row["k"], row["unique"], row["redundancy_max"]) == ("15", "5", "5")
    assert "15 prototypes, 5 different directions" in run(head, "--format", "markdown")[1]
    assert "15 prototypes, 5 different directions" in run(head, "--format", "html")[1]
    assert run(head, "--json") == run(head, "--format", "json")


def test_every_format_tells_the_radius_and_the_distances(run: Run, head: str) -> None:
    euclidean = (head, "--metric", "euclidean", "--radius", "0.5")
    report = json.loads(run(*euclidean, "--format", "json")[1])
    jsonschema.Draft202012Validator(report_schema()).validate(report)
    assert report["parameters"]["epsilon"] is None
    assert (report["parameters"]["metric"], report["parameters"]["radius"]) == ("euclidean", 0.5)
    (found,) = report["heads"]
    assert [level["radius"] for level in found["sweep"]] == [0.125, 0.25, 0.5, 1.0, 2.0]
    assert (found["nearest_cosine"], found["null"]) == (None, None)
    assert found["nearest_distance"]["min"] == 0.0
    (row,) = csv.DictReader(io.StringIO(run(*euclidean, "--format", "csv")[1]))
    assert (row["metric"], row["radius"], row["epsilon"], row["unique"]) == (
        "euclidean", "0.5", "", str(found["unique"]["greedy"])
    )  # fmt: skip
    for form in ("table", "markdown", "html"):
        text = run(*euclidean, "--format", form)[1].replace("&lt;", "<")
        assert "Euclidean distance < 0.5" in text.replace("\\", "")
        assert "nearest distance" in text
        assert "degrees" not in text
        assert "by chance" not in text
    default = json.loads(run(head, "--metric", "euclidean", "--format", "json")[1])
    assert default["parameters"]["radius"] == default["heads"][0]["radius"]
    assert "the radius is 0.2 of" in default["heads"][0]["notes"][0]


def test_two_runs_print_the_same_bytes(run: Run, head: str) -> None:
    assert run(head, "--json") == run(head, "--json")


def test_the_checksum_is_that_of_the_file(run: Run, head: str, folder: Path) -> None:
    from hashlib import sha256

    report = json.loads(run(head, "--json")[1])
    assert report["source"]["sha256"] == sha256((folder / head).read_bytes()).hexdigest()


def test_a_report_holds_no_absolute_path(run: Run, head: str, folder: Path) -> None:
    assert str(folder) not in run(folder / head, "--json")[1]


def test_epsilon_sweep_and_nearest_are_obeyed(run: Run, head: str) -> None:
    report = json.loads(run(head, "--json", "--epsilon", "0.5", "--no-sweep", "--no-nearest")[1])
    assert report["parameters"]["epsilon"] == 0.5
    assert report["heads"][0]["sweep"] == []
    assert report["heads"][0]["nearest_cosine"] is None
    jsonschema.Draft202012Validator(report_schema()).validate(report)


def test_the_table_follows_columns_up_to_a_hundred(
    run: Run, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns, width in (("80", 80), ("500", 100), ("1", 72), ("nonsense", 100)):
        monkeypatch.setenv("COLUMNS", columns)
        lines = run(head)[1].splitlines()
        assert max(map(len, lines)) == width  # the rule below the name of the head


def test_notes_go_to_stderr_once_and_quiet_drops_them(run: Run, student_only: str) -> None:
    code, out, err = run(student_only, "--json")
    assert code == 0
    assert json.loads(out)["heads"][0]["branch"] == "student"
    assert err.startswith("note: student.pth: ")
    assert len(err.splitlines()) == 1
    assert run(student_only, "--json", "--quiet") == (0, out, "")
    assert run("-q", student_only, "--json") == (0, out, "")
