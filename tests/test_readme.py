"""What the README shows is what the program prints."""

from __future__ import annotations

import doctest
import re
import shutil
from pathlib import Path

import pytest

from collapse_audit.cli import main


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
    assert main(["dino_vits16", "--offline", "--checkpoint-dir", "checkpoints"]) == 2
    assert capsys.readouterr().err.strip() in readme


def test_the_notebook_example_runs(readme: str) -> None:
    (block,) = re.findall(r"```pycon\n(.*?)```", readme, flags=re.DOTALL)
    example = doctest.DocTestParser().get_doctest(block, {}, "README", "README.md", 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    assert runner.run(example).failed == 0


def test_the_gate_prints_what_the_readme_shows(
    readme: str,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    examples = repository / "collapse_audit" / "examples"
    for name, example in (("good", "digits_koleo_proto"), ("head", "digits_baseline")):
        shutil.copy(examples / f"{example}.safetensors", tmp_path / f"{name}.safetensors")
    monkeypatch.chdir(tmp_path)
    baseline = ["--baseline", "baseline.json"]
    assert main(["check", "good.safetensors", *baseline, "--update-baseline"]) == 0
    capsys.readouterr()
    gate = ["--fail-on", "unique_fraction:-5%"]
    assert main(["check", "head.safetensors", *baseline, *gate]) == 1
    printed = capsys.readouterr().out
    assert "FAILED" in printed
    assert set(_lines(printed)) <= set(_lines(readme))


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]
