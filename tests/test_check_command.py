"""`check` and `compare` on the command line: exit codes, formats, baselines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import jsonschema
import junitparser
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from collapse_audit.cli.check_command import check_command
from collapse_audit.cli.compare_command import compare_command
from collapse_audit.errors import CollapseAuditError

EMPTY_SETTINGS = "[check]\n"
FORMATS = ("table", "json", "markdown", "junit", "github")


class Ran(NamedTuple):
    """What a command did; code 2 stands for an error that the entry point turns into it."""

    code: int
    stdout: str
    error: str


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder, as the entry point does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    (tmp_path / "collapse-audit.toml").write_text(EMPTY_SETTINGS, encoding="utf-8")

    def run(*arguments: str, command: click.Command = check_command, stdin: str = "") -> Ran:
        result = CliRunner().invoke(command, list(arguments), input=stdin, standalone_mode=False)
        if isinstance(result.exception, CollapseAuditError | click.UsageError):
            return Ran(2, result.stdout, str(result.exception))
        if result.exception is not None:
            raise result.exception
        code = result.return_value if isinstance(result.return_value, int) else 0
        return Ran(code, result.stdout, result.stderr)

    return run


def save_head(path: Path, copies: list[int], *, d: int = 16, seed: int = 0) -> Path:
    """A head whose prototype m is repeated copies[m] times."""
    rows = np.random.default_rng(seed).standard_normal((len(copies), d)).astype(np.float32)
    save_file({"head.last_layer.weight": np.repeat(rows, copies, axis=0)}, path)
    return path


@pytest.fixture
def good(tmp_path: Path) -> str:
    """K = 20, M = 20."""
    return save_head(tmp_path / "good.safetensors", [1] * 20).name


@pytest.fixture
def bad(tmp_path: Path) -> str:
    """K = 20, M = 12, the largest redundancy factor is 9."""
    return save_head(tmp_path / "bad.safetensors", [9] + [1] * 11).name


@pytest.fixture
def baseline(run: Run, good: str) -> str:
    """The report of the good head."""
    assert run(good, "--baseline", "baseline.json", "--update-baseline").code == 0
    return "baseline.json"


# --- exit codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_exit_codes_are_the_same_in_every_format(
    run: Run, good: str, bad: str, baseline: str, form: str
) -> None:
    against = ("--baseline", baseline, "--format", form)
    assert run(good, *against).code == 0
    assert run(bad, *against).code == 1
    assert run(bad, *against, "--exit-zero").code == 0
    assert run("gone.safetensors", *against).code == 2
    assert run(bad, *against, "--fail-on", "m<3").code == 2


def test_failures_show_old_new_and_limit_and_come_first(run: Run, bad: str, baseline: str) -> None:
    gates = ("--fail-on", "k<2", "--fail-on", "M:-5%")
    ran = run(bad, "--baseline", baseline, *gates)
    assert ran.code == 1
    assert ran.stdout.splitlines()[1].split() == ["FAILED", "head", "M:-5%", "20", "12", ">=", "19"]
    assert ran.stdout.endswith("1 of 2 checks failed\n")


def test_green_says_how_many_checks_ran(run: Run, good: str, baseline: str) -> None:
    assert run(good, "--baseline", baseline).stdout.endswith("\nall 2 checks passed\n")
    assert "the only check passed" in run(good, "--fail-on", "M<20").stdout


def test_saved_reports_need_no_weights(run: Run, bad: str, baseline: str) -> None:
    run(bad, "--baseline", "bad.json", "--update-baseline")
    assert run("bad.json", "--baseline", baseline).code == 1
    text = Path("bad.json").read_text(encoding="utf-8")
    assert run("-", "--baseline", baseline, stdin=text).code == 1


def test_a_report_is_not_compared_with_itself(run: Run, baseline: str) -> None:
    assert "is the baseline itself" in run(baseline, "--baseline", f"./{baseline}").error


ERRORS = [
    ((), "nothing to check"),
    (("--fail-on", "M:-5%"), "compares with a baseline"),
    (("--fail-on", "unique_fracton<1"), "Did you mean unique_fraction"),
    (("--fail-on", "M=5"), "is not a threshold"),
    (("--update-baseline",), "--update-baseline needs --baseline FILE"),
    (("--epsilon", "1.5", "--fail-on", "M<1"), "epsilon must be between 0 and 1"),
    (("--fail-on", "M<1", "--json", "--format", "junit"), "contradict"),
    (("--fail-on", "perplexity<1"), "collapse-audit mlcd"),
    (("--config", "gone.toml", "--fail-on", "M<1"), "gone.toml: No such file"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_wrong_input_is_one_line_that_says_what_to_do(
    run: Run, good: str, arguments: tuple[str, ...], message: str
) -> None:
    ran = run(good, *arguments)
    assert ran.code == 2
    assert message in ran.error
    assert "\n" not in ran.error
    assert ran.stdout == ""


@pytest.mark.parametrize(
    "content", ["", "{", "{}", "not json", '{"schema": "collapse-audit/error"}']
)
def test_a_baseline_that_is_no_report_is_refused_and_kept(
    run: Run, good: str, content: str
) -> None:
    Path("b.json").write_text(content, encoding="utf-8")
    for more in ((), ("--missing-baseline", "create"), ("--allow", "schema")):
        assert run(good, "--baseline", "b.json", *more).code == 2
        assert Path("b.json").read_text(encoding="utf-8") == content


# --- baselines -----------------------------------------------------------------------------------


def test_a_missing_baseline_fails_with_the_command_that_creates_it(run: Run, good: str) -> None:
    ran = run(good, "--baseline", "new.json")
    assert ran.code == 2
    command = "collapse-audit check good.safetensors --baseline new.json --update-baseline"
    assert ran.error.endswith(command)
    assert run(*command.split()[2:]).code == 0
    assert run(good, "--baseline", "new.json").code == 0


def test_a_missing_baseline_can_be_created(run: Run, good: str) -> None:
    ran = run(good, "--baseline", "new.json", "--missing-baseline", "create")
    assert (ran.code, ran.stdout) == (0, "nothing was compared\n")
    assert "note: new.json is now the baseline." in ran.error
    document = json.loads(Path("new.json").read_text(encoding="utf-8"))
    assert document["heads"][0]["unique"]["greedy"] == 20
    assert document["heads"][0]["sweep"], "a baseline is a full report"
    assert document["heads"][0]["nearest_cosine"]


def test_a_missing_baseline_can_be_skipped_but_gates_still_run(run: Run, bad: str) -> None:
    skip = ("--baseline", "new.json", "--missing-baseline", "skip", "--fail-on", "M:-5%")
    ran = run(bad, *skip)
    assert ran.code == 0
    assert "nothing was compared, 1 skipped for want of a baseline" in ran.stdout
    assert run(bad, *skip, "--fail-on", "M<20").code == 1
    assert not Path("new.json").exists()


def test_a_baseline_is_not_updated_if_an_absolute_limit_fails(
    run: Run, bad: str, baseline: str
) -> None:
    before = Path(baseline).read_bytes()
    update = (bad, "--baseline", baseline, "--update-baseline")
    assert run(*update, "--fail-on", "unique_fraction<0.9").code == 1
    assert Path(baseline).read_bytes() == before
    assert run(*update, "--fail-on", "M:-1%").code == 0
    assert Path(baseline).read_bytes() != before


def test_a_baseline_of_the_same_head_is_byte_for_byte_the_same(
    run: Run, good: str, baseline: str
) -> None:
    before = Path(baseline).read_bytes()
    run(good, "--baseline", baseline, "--update-baseline")
    assert Path(baseline).read_bytes() == before


def test_another_epsilon_is_refused_unless_allowed(run: Run, good: str, baseline: str) -> None:
    other = (good, "--baseline", baseline, "--epsilon", "0.1")
    assert "epsilon is 0.1 here and 0.025 in the baseline" in run(*other).error
    assert run(*other, "--allow", "epsilon").code == 0


def test_a_saved_report_of_another_epsilon_than_asked_for_is_refused(
    run: Run, baseline: str
) -> None:
    gate = (baseline, "--fail-on", "M<1")
    assert run(*gate, "--epsilon", "0.025").code == 0
    assert "made with epsilon 0.025, not 0.1" in run(*gate, "--epsilon", "0.1").error


# --- settings ------------------------------------------------------------------------------------


def test_settings_apply_and_options_win(run: Run, good: str, bad: str, baseline: str) -> None:
    Path("collapse-audit.toml").write_text(
        f'[check]\nbaseline = "{baseline}"\nfail-on = ["M:-50%", "r_max>8"]\n', encoding="utf-8"
    )
    assert run(good).code == 0
    ran = run(bad)
    assert (ran.code, ran.stdout.count("FAILED")) == (1, 1)
    assert run(bad, "--fail-on", "M:-50%").code == 0


def test_settings_of_pyproject_apply(run: Run, bad: str) -> None:
    Path("pyproject.toml").write_text(
        '[tool.collapse-audit.check]\nfail-on = ["M<20"]\n', encoding="utf-8"
    )
    assert run(bad, "--config", "pyproject.toml").code == 1
    Path("collapse-audit.toml").unlink()
    assert run(bad).code == 1


# --- formats -------------------------------------------------------------------------------------


def test_json_obeys_the_shipped_schema(run: Run, bad: str, baseline: str, repository: Path) -> None:
    schema = json.loads(
        (repository / "collapse_audit/report/verdict_schema.json").read_text(encoding="utf-8")
    )
    jsonschema.Draft202012Validator.check_schema(schema)
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


# --- compare -------------------------------------------------------------------------------------


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


# --- the path without torch ----------------------------------------------------------------------


def test_check_of_safetensors_npz_and_json_imports_no_torch(
    run: Run, good: str, repository: Path
) -> None:
    run(good, "--baseline", "report.json", "--update-baseline")
    np.savez("head.npz", prototypes=load_file(good)["head.last_layer.weight"])
    for source in (good, "head.npz", "report.json"):
        code = (
            "import sys; from collapse_audit.cli.check_command import check_command as c; "
            f"c([{source!r}, '--fail-on', 'M<20'], standalone_mode=False); "
            "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": str(repository)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "the only check passed" in done.stdout


@pytest.mark.slow
def test_reports_are_identical_with_and_without_torch_on_every_genuine_file(
    run: Run, shared_checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = json.loads((shared_checkpoints / "truth.json").read_text(encoding="utf-8"))
    heads = [n for n, entry in truth.items() if entry["expect"] == "ok" and entry.get("heads")]
    assert len(heads) > 10
    for name in heads:
        source, reports = str(shared_checkpoints / name), []
        for arithmetic in ("numpy", "bfloat16"):
            monkeypatch.setenv("COLLAPSE_AUDIT_ARITHMETIC", arithmetic)
            ran = run(source, "--baseline", f"{arithmetic}.json", "--update-baseline")
            assert ran.code == 0, ran.error
            reports.append(Path(f"{arithmetic}.json").read_text(encoding="utf-8"))
        assert reports[0] == reports[1], name
