"""The composite GitHub Action and the pre-commit hook: their shell runs as a runner runs it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

EXPRESSION = re.compile(r"\$\{\{\s*([\w.-]+)\s*\}\}")


class Runner:
    """Runs single steps of the action; outputs of a step are seen by the next ones."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.action = yaml.safe_load((repository / "action.yml").read_text(encoding="utf-8"))
        self.folder = folder
        self.outputs: dict[str, str] = {}
        self.context = {
            f"inputs.{k}": v.get("default", "") for k, v in self.action["inputs"].items()
        }
        self.context |= {
            "github.action_path": str(repository),
            "github.token": "token",
            "github.repository": "owner/name",
            "github.event.pull_request.number": "7",
        }
        self.environment = os.environ | {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(repository),
            "RUNNER_TEMP": str(folder),
            "OMP_NUM_THREADS": "1",
        }
        self._tool("collapse-audit", f'exec {shlex.quote(sys.executable)} -m collapse_audit "$@"')
        self._tool("gh", f'printf "%s\\n" "$@" > {shlex.quote(str(folder / "gh.txt"))}')
        self._tool("python", f'printf "%s\\n" "$@" >> {shlex.quote(str(folder / "python.txt"))}')

    def run(self, name: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        """Run one step by its name."""
        (step,) = [step for step in self.action["runs"]["steps"] if step["name"] == name]
        given = self.context | {f"inputs.{k.replace('_', '-')}": v for k, v in inputs.items()}
        given |= {f"steps.check.outputs.{k}": v for k, v in self.outputs.items()}
        files = {
            name: self.folder / f"{name}.{len(self.outputs)}.txt"
            for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")
        }
        for path in files.values():
            path.write_text("", encoding="utf-8")
        values = {
            key: EXPRESSION.sub(lambda match: given[match[1]], value)
            for key, value in step["env"].items()
        }
        done = subprocess.run(
            ["/bin/bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.folder,
            env=self.environment | values | {k: str(v) for k, v in files.items()},
            capture_output=True,
            text=True,
            check=False,
        )
        lines = files["GITHUB_OUTPUT"].read_text(encoding="utf-8").splitlines()
        self.outputs |= dict(line.split("=", 1) for line in lines)
        return done

    def _tool(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        path.chmod(0o755)


@pytest.fixture
def runner(repository: Path, tmp_path: Path) -> Runner:
    rows = np.eye(8, dtype=np.float32)
    save_file({"head.last_layer.weight": rows}, tmp_path / "good.safetensors")
    collapsed = rows[[0, 0, 0, 0, 1, 2, 3, 4]]
    save_file({"head.last_layer.weight": collapsed}, tmp_path / "bad one.safetensors")
    return Runner(repository, tmp_path)


def test_a_good_head_passes_every_step(runner: Runner, tmp_path: Path) -> None:
    inputs = {"source": "good.safetensors", "fail_on": "unique_fraction<0.9\nr_max>1\n"}
    done = runner.run("Check", **inputs)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "::notice title=collapse-audit::all 2 checks passed\n"
    assert runner.outputs == {"exit-code": "0"}
    done = runner.run("Report", **inputs)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "collapse-audit.html").stat().st_size > 1000
    assert runner.run("Verdict").returncode == 0


def test_a_collapsed_head_is_annotated_commented_and_fails_at_the_end(
    runner: Runner, tmp_path: Path
) -> None:
    inputs = {"source": "bad one.safetensors", "fail_on": "M<8"}
    done = runner.run("Check", **inputs)
    assert done.returncode == 0, "the report must still be made"
    assert done.stdout.startswith("::error title=head%3A M<8::unique.greedy is 5")
    assert runner.run("Comment", comment="true").returncode == 0
    arguments = (tmp_path / "gh.txt").read_text(encoding="utf-8").split()
    assert arguments[:5] == ["pr", "comment", "7", "--repo", "owner/name"]
    assert "FAILED" in Path(arguments[-1]).read_text(encoding="utf-8")
    assert runner.run("Verdict").returncode == 1


def test_an_input_error_ends_with_2_and_without_a_comment(runner: Runner, tmp_path: Path) -> None:
    done = runner.run("Check", source="gone.safetensors", fail_on="M<8")
    assert done.stdout.startswith("::error title=collapse-audit%3A no verdict::")
    assert runner.run("Comment", comment="true").returncode == 0
    assert not (tmp_path / "gh.txt").exists()
    assert runner.run("Verdict").returncode == 2


def test_inputs_cannot_run_commands(runner: Runner, tmp_path: Path) -> None:
    trap = "$(touch pwned)`touch pwned`; touch pwned"
    for name in ("Check", "Report", "Install"):
        runner.run(name, source=trap, baseline=trap, fail_on=trap, args=trap, package=trap)
    assert not (tmp_path / "pwned").exists()


def test_no_script_contains_an_expression(runner: Runner) -> None:
    for step in runner.action["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


def test_further_arguments_and_the_package_are_passed_on(runner: Runner, tmp_path: Path) -> None:
    inputs = {
        "source": "bad one.safetensors",
        "fail_on": "M<8",
        "args": "--exit-zero\n--epsilon=0.1",
    }
    runner.run("Check", **inputs)
    assert runner.outputs == {"exit-code": "0"}
    runner.run("Install")
    path = runner.context["github.action_path"]
    installed = (tmp_path / "python.txt").read_text(encoding="utf-8").splitlines()
    assert installed == ["-m", "pip", "install", "--quiet", path]
    runner.run("Install", light="true")
    installed = (tmp_path / "python.txt").read_text(encoding="utf-8").splitlines()
    pip = ["-m", "pip", "install", "--quiet"]
    light = [*pip, "-r", f"{path}/requirements-light.txt", *pip, "--no-deps", path]
    assert installed[5:] == light


def test_the_pre_commit_hook_names_a_command_that_exists(repository: Path) -> None:
    from collapse_audit.cli.group import COMMANDS

    hooks: list[dict[str, Any]] = yaml.safe_load(
        (repository / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
    )
    assert [hook["id"] for hook in hooks] == ["collapse-audit", "collapse-audit-light"]
    for hook in hooks:
        program, command = hook["entry"].split()
        assert program == "collapse-audit" or os.access(repository / program, os.X_OK)
        assert command in COMMANDS
        assert re.search(hook["files"], "heads/student.safetensors")


def test_a_run_is_checked_and_its_history_is_the_report(runner: Runner, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name, step in (("good", 1), ("bad one", 2)):
        (tmp_path / f"{name}.safetensors").rename(run / f"step{step}.safetensors")
    inputs = {"fail_on": "trend.unique_fraction:-5%\n"}
    for source in ("run", "run/step*.safetensors"):
        done = runner.run("Check", source=source, **inputs)
        assert "is 0.625 (baseline 1) and must be >= 0.95 at step 2" in done.stdout, done.stderr
        assert runner.outputs == {"exit-code": "1"}
        done = runner.run("Report", source=source)
        assert done.returncode == 0, done.stderr
        page = (tmp_path / "collapse-audit.html").read_text(encoding="utf-8")
        assert "The collapse began at step 2" in page
