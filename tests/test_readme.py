"""What the README shows is what the program prints."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path

import pytest

from collapse_audit.audit import audit_prototypes
from collapse_audit.checkpoints import load_prototypes
from collapse_audit.cli import main
from collapse_audit.examples import embedded_head


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def test_the_demo_prints_what_the_readme_shows(
    readme: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["demo", "--quiet"]) == 0
    (block,) = re.findall(r"```text\n(.*?)```", readme, flags=re.DOTALL)
    assert _lines(block) == _lines(capsys.readouterr().out)


def test_the_missing_file_is_explained_as_the_readme_shows(
    readme: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dino_vits16", "--checkpoint-dir", "checkpoints"]) == 2
    assert capsys.readouterr().err.strip() in readme


def test_the_notebook_example_runs(readme: str) -> None:
    (block,) = re.findall(r"```pycon\n(.*?)```", readme, flags=re.DOTALL)
    example = doctest.DocTestParser().get_doctest(block, {}, "README", "README.md", 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(example).failed == 0


def test_the_fields_for_a_gate_are_those_of_the_report(readme: str) -> None:
    report = audit_prototypes(load_prototypes(embedded_head())).to_dict()
    assert str(report["heads"][0]["unique"]) in readme
    json.dumps(report)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]
