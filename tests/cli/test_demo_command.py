"""The demo: an audit of the head inside the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema

from collapse_audit.examples import embedded_head
from collapse_audit.report.schema import report_schema
from tests.cli.conftest import Run


def test_the_demo_shows_a_trained_collapse_with_its_bracket_and_how_to_go_on(run: Run) -> None:
    code, out, err = run("demo", "--json")
    report: dict[str, Any] = json.loads(out)
    jsonschema.Draft202012Validator(report_schema()).validate(report)
    (embedded,) = report["heads"]
    assert code == 0
    assert (report["source"]["spec"], report["source"]["family"]) == ("demo", "collapse_audit")
    assert (embedded["k"], embedded["d"], embedded["branch"]) == (512, 64, "teacher")
    stored = json.loads(embedded_head().with_suffix(".audit.json").read_text(encoding="utf-8"))
    assert embedded["unique"] == stored["unique"]
    assert embedded["redundancy_factors"]["max"] == stored["largest_redundancy_factor"] == 51
    assert (embedded["unique"]["greedy"], embedded["unique"]["bracket"]) == (112, [78, 143])
    assert not embedded["unique"]["definition_independent"]
    assert all(line.startswith("hint: collapse-audit ") for line in err.splitlines())
    assert len(err.splitlines()) == 4
    assert run("demo", "--json", "--quiet") == (0, out, "")


def test_the_demo_has_the_output_options_of_an_audit(run: Run, folder: Path) -> None:
    code, out, _ = run("demo", "-o", "demo.md", "--epsilon", "0.1")
    assert (code, out) == (0, "")
    assert "epsilon 0.1" in (folder / "demo.md").read_text(encoding="utf-8")
