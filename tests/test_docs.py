"""What the pages show is what the program prints."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from collapse_audit.cli import main


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "mlcd.md").read_text(encoding="utf-8")


def test_the_examples_in_python_give_what_the_page_shows(page: str) -> None:
    blocks = re.findall(r"```pycon\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        example = doctest.DocTestParser().get_doctest(block, {}, "mlcd", "docs/mlcd.md", 0)
        assert doctest.DocTestRunner().run(example).failed == 0


def test_mlcd_of_the_demo_prints_what_the_page_shows(
    page: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["mlcd", "demo", "--data", "digits", "--quiet"]) == 0
    (block,) = re.findall(r"```text\n(.*?)```", page, flags=re.DOTALL)
    printed = capsys.readouterr().out
    assert words(block) == words(printed[printed.index("MLCD of") :])


def words(text: str) -> list[str | object]:
    """Words; numbers agree to three digits, for the last one depends on the processor."""
    return [number(word) for word in text.split()]


def number(word: str) -> str | object:
    try:
        return pytest.approx(float(word.replace(",", "").strip("()")), rel=1e-3, abs=1e-4)
    except ValueError:
        return word
