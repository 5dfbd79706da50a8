"""Names out of files in every format: text, and nothing that a reader of it runs or follows."""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from collapse_audit.cli.entry import main
from collapse_audit.errors import CollapseAuditError
from collapse_audit.report.columns import escape
from collapse_audit.report.comparison_text import (
    comparison_to_csv,
    comparison_to_markdown,
    comparison_to_table,
)
from collapse_audit.report.csv_text import to_csv
from collapse_audit.report.github import error_to_github, verdict_to_github
from collapse_audit.report.html import comparison_to_html, to_html
from collapse_audit.report.json_text import to_json
from collapse_audit.report.junit import error_to_junit, verdict_to_junit
from collapse_audit.report.markdown import to_markdown
from collapse_audit.report.table import to_table
from collapse_audit.report.verdict_text import verdict_to_markdown, verdict_to_table
from collapse_audit.words import printable

PIECES = (
    "::set-output name=a::b", "::add-mask::x", "##[command]x", "=1+1", "+1", "-1", "@SUM(A1)",
    "\t=1", "\r=1", ";=1", " =1", "\uff1d1", "\n", "\r\n", "\x1b[31m", "\x00", "\x85", "\u2028",
    "\u202e", "\u2066", "\ud800", "@octocat", "#123", "https://example.org", "www.example.org",
    "a@b.org", "[a](b)", "![a](b)", "<script>alert(1)</script>", "&lt;", "|", "`", "*", "_", "\\",
    "~~", "$x$", '"', "'", ",", "%0A", "%", ":", "]]>", "é", "head", " ", "-->", "{{1}}",
)  # fmt: skip
names = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), min_size=1, max_size=6).map("".join)
LAW = settings(max_examples=300, deadline=None)
DATA = Path(__file__).parent / "data"


@cache
def saved() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DATA / "report.json").read_text(encoding="utf-8"))
    return document


def report_of(name: str) -> Any:
    report = copy.deepcopy(saved())
    report["source"]["spec"] = name
    for head in report["heads"]:
        head |= {"name": name, "tensor_keys": [name, f"{name}.weight"], "notes": [name]}
        if head["published"]:
            head["published"]["source"] = name
    return report


def verdict_of(name: str) -> Any:
    check = {
        "head": name, "branch": None, "threshold": "M:-5%", "metric": "unique.greedy",
        "status": "failed", "baseline": 5, "value": 1, "limit": ">= 4",
    }  # fmt: skip
    return {"source": name, "baseline": name, "checks": [check] * 12}


def comparison_of(name: str) -> Any:
    row = {"metric": "M", "values": [1, 2], "deltas": [1], "judgements": [None]}
    share = {
        "metric": "unique_fraction",
        "values": [1, 0.5],
        "deltas": [-0.5],
        "judgements": [None],
    }
    head = {
        "name": name,
        "branch": None,
        "metrics": [row, share],
        "regroupings": [None],
        "partners": [name],
    }
    return {"sources": [name, name], "heads": [head], "tool": {"version": "1"}}


def check_text(text: str, *, longest: int | None = 4000) -> None:
    """What holds for every text that a terminal, a log or a browser may show."""
    text.encode()
    for line in text.split("\n"):
        assert line.isprintable(), line
        assert "##[" not in line
        assert longest is None or len(line) <= longest


@LAW
@given(names)
def test_text_for_people_is_printable_bounded_and_gives_no_orders(name: str) -> None:
    for text in (
        to_table(report_of(name)), to_markdown(report_of(name)), to_csv(report_of(name)),
        verdict_to_table(verdict_of(name)), verdict_to_markdown(verdict_of(name)),
        comparison_to_table(comparison_of(name)), comparison_to_markdown(comparison_of(name)),
        comparison_to_csv(comparison_of(name)), to_json(report_of(name)),
        verdict_to_junit(verdict_of(name)), error_to_junit(name),
    ):  # fmt: skip
        check_text(text)
        assert not any(line.lstrip().startswith("::") for line in text.split("\n"))
    for text in (verdict_to_github(verdict_of(name)), error_to_github(name)):
        check_text(text)
        assert all(re.match("::(?:error|notice) title=", line) for line in text.splitlines())
    assert json.loads(to_json(report_of(name))) == report_of(name)
    ET.fromstring(verdict_to_junit(verdict_of(name)))  # noqa: S314 - our own


class _Page(HTMLParser):
    tags: frozenset[str] = frozenset()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags = self.tags | {tag}
        assert not any(key.startswith("on") or key in {"href", "src"} for key, _ in attrs)


def tags_of(text: str) -> frozenset[str]:
    page = _Page()
    page.feed(text)
    return page.tags


@cache
def tags_of_plain_pages() -> list[frozenset[str]]:
    return [tags_of(text) for text in pages_of("head")]


def pages_of(name: str) -> tuple[str, str]:
    return to_html(report_of(name)), comparison_to_html(comparison_of(name))


@settings(max_examples=60, deadline=None)
@given(names)
def test_html_has_the_tags_of_the_page_alone(name: str) -> None:
    pages = pages_of(name)
    assert [tags_of(text) for text in pages] == tags_of_plain_pages()
    for text in pages:
        check_text(text, longest=None)


@LAW
@given(names)
def test_no_spreadsheet_runs_a_cell(name: str) -> None:
    for text in (to_csv(report_of(name)), comparison_to_csv(comparison_of(name))):
        for row in csv.reader(io.StringIO(text, newline="")):
            for cell in row:
                if re.fullmatch(r"[-+]?[0-9.]+(?:e[-+]?[0-9]+)?", cell):
                    continue
                for part in cell.split(";"):
                    assert part.strip()[:1] not in set("=+-@\uff1d\uff0b\uff0d\uff20") - {""}, cell


@LAW
@given(names)
def test_markdown_renders_the_name_as_text(name: str) -> None:
    line = escape(name)
    (block,) = [t for t in MarkdownIt("gfm-like").disable("linkify").parse(f"x {line} x")
                if t.type == "inline"]  # fmt: skip
    shown = "".join(child.content for child in block.children or ())
    assert {child.type for child in block.children or ()} <= {"text", "text_special"}
    assert shown.replace("\u200b", "") == f"x {printable(name, None)} x"
    assert not re.search(r"@\w|https?://|www\.|#\d", shown)


@pytest.mark.slow
def test_names_of_megabytes_end_in_lines_that_can_be_read() -> None:
    name = "::a@b\x1b[31m=" * 100_000
    check_text(str(CollapseAuditError(name, hint=name)))
    for text in (
        to_table(report_of(name)), verdict_to_table(verdict_of(name)), error_to_github(name),
        comparison_to_table(comparison_of(name)), verdict_to_markdown(verdict_of(name)),
        verdict_to_junit(verdict_of(name)), error_to_junit(name),
        verdict_to_github(verdict_of(name)),
    ):  # fmt: skip
        check_text(text, longest=20_000)


@pytest.mark.parametrize("verb", ["audit", "info", "compare", "check", "mlcd"])
@pytest.mark.parametrize("piece", [*PIECES, "x" * 3_000_000])
def test_no_command_passes_an_order_on(
    verb: str, piece: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    weight = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    torch.save({f"{piece}.prototypes.weight": weight, piece: {"a": 1}}, "a.pth")
    more = {"compare": ["a.pth"], "check": ["--baseline", "none.json"]}.get(verb, [])
    main([verb, "a.pth", *more])
    out, err = capsys.readouterr()
    check_text(out, longest=8000)
    check_text(err, longest=3000)
    assert not any(line.lstrip().startswith("::") for line in (out + err).split("\n"))
