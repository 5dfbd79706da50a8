"""What `check` writes for people and for CI systems."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import junitparser
import pytest

from collapse_audit.report.schema import document_schema
from tests.gate.conftest import Run


def test_json_obeys_the_shipped_schema(run: Run, bad: str, baseline: str) -> None:
    schema = document_schema("verdict")
    skipped = ("--baseline", "new.json", "--missing-baseline", "skip", "--fail-on", "M:-5%")
    for arguments in (("--baseline", baseline), ("--fail-on", "M<20"), skipped):
        document = json.loads(run(bad, *arguments, "--json").stdout)
        jsonschema.validate(document, schema)
    assert document["passed"] is True
    assert document["checks"][0]["status"] == "skipped"


def test_junit_is_read_by_junitparser(run: Run, bad: str, baseline: str) -> None:
    thresholds = ("--fail-on", "M:-5%", "--fail-on", "k<2", "--fail-on", "gini > 0.9")
    run(bad, "--baseline", baseline, *thresholds, "-o", "check.xml")
    (suite,) = junitparser.JUnitXml.fromfile("check.xml")
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (3, 1, 0, 0)
    (failed,) = [case for case in suite if not case.is_passed]
    assert (failed.classname, failed.name) == ("head", "M:-5%")
    message = "unique.greedy is 12 (baseline 20) and must be >= 19"
    assert [result.message for result in failed.result] == [message]


def test_junit_of_an_input_error_is_an_error(run: Run) -> None:
    ran = run("gone.safetensors", "--fail-on", "M<1", "--format", "junit")
    (suite,) = junitparser.JUnitXml.fromstring(ran.stdout.encode())
    assert (suite.tests, suite.errors) == (1, 1)
    (case,) = suite
    assert "gone.safetensors" in case.result[0].message


def workflow_commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Parse as GitHub's runner does (ActionCommand.cs): level, properties, message."""

    def unescape(value: str, *, is_property: bool) -> str:
        for code, character in (("%0D", "\r"), ("%0A", "\n")):
            value = value.replace(code, character)
        if is_property:
            value = value.replace("%3A", ":").replace("%2C", ",")
        return value.replace("%25", "%")

    found = []
    for line in text.splitlines():
        assert line.startswith("::")
        head, _, message = line[2:].partition("::")
        level, _, properties = head.partition(" ")
        pairs = (item.split("=", 1) for item in properties.split(","))
        parsed = {key: unescape(value, is_property=True) for key, value in pairs}
        found.append((level, parsed, unescape(message, is_property=False)))
    return found


def test_github_annotations_survive_the_runners_parser(run: Run, bad: str, baseline: str) -> None:
    ran = run(bad, "--baseline", baseline, "--fail-on", "M:-5%", "--format", "github")
    assert workflow_commands(ran.stdout) == [
        (
            "error",
            {"title": "head: M:-5%"},
            "unique.greedy is 12 (baseline 20) and must be >= 19",
        ),
        ("notice", {"title": "collapse-audit"}, "1 of 1 check failed"),
    ]


def test_failures_beyond_what_github_shows_are_listed_in_the_last_annotation(
    run: Run, bad: str
) -> None:
    gates = [word for i in range(13) for word in ("--fail-on", f"M<{100 + i}")]
    commands = workflow_commands(run(bad, *gates, "--format", "github").stdout)
    assert [level for level, _, _ in commands] == ["error"] * 10 + ["notice"]
    assert commands[9][1]["title"] == "4 more failed checks"
    assert commands[9][2].count("\n") == 3


def test_github_errors_are_annotated_too(run: Run) -> None:
    ran = run("gone.safetensors", "--fail-on", "M<1", "--format", "github")
    ((level, properties, message),) = workflow_commands(ran.stdout)
    assert (level, properties["title"]) == ("error", "collapse-audit: no verdict")
    assert "gone.safetensors" in message


def test_the_step_summary_is_appended_to(
    run: Run, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("summary.md").write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    run(bad, "--fail-on", "M<20", "--format", "github")
    text = Path("summary.md").read_text(encoding="utf-8")
    assert text.startswith("before\n### Prototype collapse check\n")
    assert "| FAILED | head | M\\<20 | - | 12 | \\>= 20 |" in text
    run(bad, "--fail-on", "M<20", "--format", "markdown")
    assert Path("summary.md").read_text(encoding="utf-8") == text
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "no/such/folder.md")
    ran = run(bad, "--fail-on", "M<20", "--format", "github")
    assert (ran.code, "no step summary" in ran.error) == (1, True)


@pytest.mark.parametrize("form", ["table", "json", "junit"])
def test_a_dash_is_stdout(run: Run, good: str, baseline: str, form: str, tmp_path: Path) -> None:
    written = run(good, "--baseline", baseline, "--format", form, "-o", "-")
    assert written == run(good, "--baseline", baseline, "--format", form)
    assert written.stdout
    assert not (tmp_path / "-").exists()
