"""`check` on the command line: exit codes, baselines, settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.gate.conftest import Run

FORMATS = ("table", "json", "markdown", "junit", "github")


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
    for name in ("bad.json", bad):  # a pipe brings either
        assert run("-", "--baseline", baseline, stdin=Path(name).read_bytes()).code == 1
    assert "stdin: not valid JSON" in run("-", "--baseline", baseline, stdin=b"{").error


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
    (("--config", "gone.toml", "--fail-on", "M<1"), "gone.toml: cannot be read (No such file"),
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


def test_a_worse_head_becomes_the_baseline_only_if_yes_is_said(
    run: Run, bad: str, baseline: str
) -> None:
    before = Path(baseline).read_bytes()
    update = (bad, "--baseline", baseline, "--update-baseline")
    ran = run(*update)
    assert ran.code == 1
    assert ran.stdout.splitlines()[1].split()[-5:] == ["unique.greedy:-0", "20", "12", ">=", "20"]
    assert "note: the baseline is kept. Add --yes" in ran.error
    assert run(*update, "--fail-on", "M<1").code == 0  # what may change is not limited
    Path(baseline).write_bytes(before)
    ran = run(*update, "--yes")
    assert ran.code == 0
    rows = [line.split() for line in ran.stdout.splitlines()[1:3]]
    assert [row[0] for row in rows] == ["accepted", "accepted"]
    assert [row[3:5] for row in rows] == [["20", "12"], ["1", "9"]]
    assert ran.stdout.endswith("\n2 accepted for the new baseline\n")
    assert "note: baseline.json is now the baseline." in ran.error
    assert Path(baseline).read_bytes() != before
    document = json.loads(run(bad, "--baseline", baseline, "--json").stdout)
    assert document["passed"]


def test_yes_without_an_update_is_refused(run: Run, bad: str, baseline: str) -> None:
    for options in (("--baseline", baseline), ("--fail-on", "M<1")):
        ran = run(bad, *options, "--yes")
        assert (ran.code, ran.stdout) == (2, "")
        assert "--yes needs --update-baseline." in ran.error


def test_a_bad_threshold_is_said_to_be_of_the_settings_file(run: Run, good: str) -> None:
    Path("collapse-audit.toml").write_text('[check]\nfail-on = ["M<<1"]\n', encoding="utf-8")
    ran = run(good)
    assert ran.code == 2
    assert "collapse-audit.toml: 'M<<1' is not a threshold. Write metric:-5%" in ran.error


def test_a_baseline_is_not_updated_if_an_absolute_limit_fails(
    run: Run, bad: str, baseline: str
) -> None:
    before = Path(baseline).read_bytes()
    update = (bad, "--baseline", baseline, "--update-baseline", "--yes")
    ran = run(*update, "--fail-on", "unique_fraction<0.9", "--fail-on", "M:-1%")
    assert (ran.code, ran.error) == (1, "note: the baseline is kept.\n")
    assert ran.stdout.endswith("1 of 1 check failed, 1 accepted for the new baseline\n")
    assert Path(baseline).read_bytes() == before
    assert run(*update, "--fail-on", "M:-1%").code == 0
    assert Path(baseline).read_bytes() != before


@pytest.mark.parametrize("damage", ["not json", None])
def test_a_baseline_that_cannot_be_compared_is_replaced_only_if_yes_is_said(
    run: Run, bad: str, baseline: str, damage: str | None
) -> None:
    if damage is None:  # K differs
        report = json.loads(Path(baseline).read_text(encoding="utf-8"))
        report["heads"][0]["k"] = 512
        damage = json.dumps(report)
    Path(baseline).write_text(damage, encoding="utf-8")
    update = (bad, "--baseline", baseline, "--update-baseline")
    ran = run(*update)
    assert ran.code == 2
    assert ran.error.endswith("Add --yes to replace it all the same.")
    assert Path(baseline).read_text(encoding="utf-8") == damage
    assert run(*update, "--yes").code == 0
    assert run(bad, "--baseline", baseline).code == 0


def test_a_baseline_of_the_same_head_is_byte_for_byte_the_same(
    run: Run, good: str, baseline: str
) -> None:
    before = Path(baseline).read_bytes()
    run(good, "--baseline", baseline, "--update-baseline")
    assert Path(baseline).read_bytes() == before


def test_another_epsilon_is_refused_unless_allowed(run: Run, good: str, baseline: str) -> None:
    other = (good, "--baseline", baseline, "--epsilon", "0.1")
    error = run(*other).error
    assert "epsilon is 0.1 here and 0.025 there, so" in error
    assert error.endswith("say `allow=epsilon`. Or replace the baseline with --update-baseline.")
    assert run(*other, "--allow", "epsilon").code == 0


def test_a_saved_report_of_another_epsilon_than_asked_for_is_refused(
    run: Run, baseline: str
) -> None:
    gate = (baseline, "--fail-on", "M<1")
    assert run(*gate, "--epsilon", "0.025").code == 0
    assert "made with epsilon 0.025, not 0.1" in run(*gate, "--epsilon", "0.1").error


def test_a_baseline_of_another_metric_or_radius_is_refused(run: Run, good: str) -> None:
    euclidean = (good, "--metric", "euclidean", "--radius")
    made = run(*euclidean, "0.5", "--baseline", "codes.json", "--missing-baseline", "create")
    assert made.code == 0
    assert run(*euclidean, "0.5", "--baseline", "codes.json").code == 0
    assert (
        "the metric is cosine here and euclidean there"
        in run(good, "--baseline", "codes.json").error
    )
    other = run(*euclidean, "0.25", "--baseline", "codes.json").error
    assert "is 0.25 here and 0.5 there" in other
    assert "allow=radius" in other
    assert "\n" not in other
    saved = run("codes.json", "--metric", "euclidean", "--radius", "2", "--fail-on", "M<1").error
    assert "made with radius 0.5, not 2.0" in saved
    trend = run(*euclidean, "0.5", "--fail-on", "trend.unique_fraction:-5%")
    assert "cosine metric only" in trend.error


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


# --- the path without torch ----------------------------------------------------------------------


def test_check_of_safetensors_npz_and_json_imports_no_torch(
    run: Run, good: str, repository: Path
) -> None:
    run(good, "--baseline", "report.json", "--update-baseline")
    np.savez("head.npz", prototypes=load_file(good)["head.last_layer.weight"])
    for source in (good, "head.npz", "report.json"):
        code = (
            "import sys; from collapse_audit.cli.commands.check import check_command as c; "
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
            ran = run(source, "--baseline", f"{arithmetic}.json", "--update-baseline", "--yes")
            assert ran.code == 0, ran.error
            reports.append(Path(f"{arithmetic}.json").read_text(encoding="utf-8"))
        assert reports[0] == reports[1], name
