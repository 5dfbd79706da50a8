"""Heads, reports and a baseline for the tests of the gate, and how its commands are run."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from collapse_audit.cli.commands.check import check_command
from collapse_audit.errors import CollapseAuditError
from collapse_audit.head_audit import CollapseAudit, audit_prototypes
from collapse_audit.prototypes import Prototypes

EMPTY_SETTINGS = "[check]\n"


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

    def run(*arguments: str, command: click.Command = check_command, stdin: bytes = b"") -> Ran:
        pipe = io.BufferedReader(io.BytesIO(stdin))  # type: ignore[arg-type, unused-ignore]
        result = CliRunner().invoke(command, list(arguments), input=pipe, standalone_mode=False)
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


def head_of(copies: list[int], **keywords: Any) -> CollapseAudit:
    """A head whose prototype m is repeated copies[m] times, all directions orthogonal."""
    weight = np.repeat(np.eye(len(copies)), copies, axis=0)
    return audit_prototypes(Prototypes.from_weight(weight, **keywords))


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """K = 10, M = 8, the largest redundancy factor is 3."""
    return dict(head_of([3, 1, 1, 1, 1, 1, 1, 1]).to_dict())


def edited(report: dict[str, Any], edit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    other = copy.deepcopy(report)
    edit(other)
    return other


INCOMPARABLE = {
    "schema": lambda r: r.update(schema_version="2.0"),
    "metric": lambda r: r["parameters"].update(metric="euclidean"),
    "radius": lambda r: r["heads"][0].update(radius=0.5),
    "epsilon": lambda r: r["parameters"].update(epsilon=0.05),
    "rule": lambda r: r["parameters"].update(rule="components"),
    "k": lambda r: r["heads"][0].update(k=11),
    "branch": lambda r: r["heads"][0].update(branch="student"),
}
