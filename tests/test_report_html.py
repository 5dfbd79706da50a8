from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest

from collapse_audit.report import svg
from collapse_audit.report.html import to_html, to_html_fragment

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """What a browser would see: tags, attributes and text; complains about unclosed tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_well_formed_and_loads_nothing(report: dict[str, Any]) -> None:
    text = to_html(report)
    page = Page(text)
    assert page.open == []
    assert text.startswith("<!DOCTYPE html>")
    assert set(page.tags).isdisjoint({"link", "img", "iframe", "object", "embed", "base"})
    names = {name for name, _ in page.attributes}
    assert names.isdisjoint({"src", "href", "xlink:href", "srcset", "action", "style"})
    assert not any(name.startswith("on") for name in names)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_is_light_or_dark_as_the_reader_is(report: dict[str, Any]) -> None:
    text = to_html(report)
    assert "prefers-color-scheme: dark" in text
    assert ("content", "light dark") in Page(text).attributes


def test_the_page_says_the_numbers_and_draws_both_figures(report: dict[str, Any]) -> None:
    page = Page(to_html(report))
    assert "13.8 % of the prototypes are unique" in page.text
    assert "140 (ours is -3), Example and Example (2024), Table 2" in page.text
    # two gauges, two histograms, and one sweep: the second head has none
    assert page.tags.count("svg") == 5
    assert page.tags.count("polyline") == 3
    assert page.tags.count("circle") == 21


def test_the_report_can_be_taken_out_of_the_page(report: dict[str, Any]) -> None:
    text = Page(to_html(report)).text
    start, end = text.index('{\n  "schema"'), text.rindex("}", 0, text.index("Glossary")) + 1
    assert json.loads(text[start:end]) == report


@pytest.mark.parametrize("write", [to_html, to_html_fragment])
def test_names_out_of_files_cannot_become_markup(report: dict[str, Any], write: Any) -> None:
    clean = Page(write(report)).tags
    for head in report["heads"]:
        head["name"] = "</title><script>alert(1)</script>"
        head["tensor_keys"] = ['"><img src=x onerror=alert(1)>']
    report["source"]["spec"] = "<b>x</b>"
    assert Page(write(report)).tags == clean


def test_a_page_of_many_large_heads_stays_below_two_megabytes(report: dict[str, Any]) -> None:
    head = report["heads"][0]
    # sum of 1..1447 is about a million: as many different factors as 1,048,576 prototypes can have
    head["redundancy_factors"]["histogram"] = [[r, 1] for r in range(1, 1448)]
    report["heads"] = [head] * 10
    assert len(to_html(report).encode()) < 2_000_000


def test_the_fragment_for_notebooks_is_small_and_has_no_script(report: dict[str, Any]) -> None:
    text = to_html_fragment(report)
    page = Page(text)
    assert page.open == []
    assert set(page.tags).isdisjoint({"script", "style", "link", "img", "iframe"})
    names = {name for name, _ in page.attributes}
    assert names.isdisjoint({"class", "style", "src", "href"})  # no sheet of ours is there
    assert (page.tags.count("svg"), page.tags.count("polyline")) == (3, 3)  # drawn as on the page
    assert "13.8 % of the prototypes are unique" in page.text
    assert len(text) < 20_000


def test_bars_are_proportional_and_inside_the_drawing(report: dict[str, Any]) -> None:
    bars = svg.draw_histogram(report["heads"][0])
    tallest = max(bar.unique for bar in bars)
    for bar in bars:
        assert 0 <= bar.x <= bar.x + bar.width <= svg.WIDTH
        if bar.unique:
            assert bar.height == pytest.approx(max(svg.HEIGHT * bar.unique / tallest, 1), abs=0.01)
        else:
            assert bar.height == 0


def test_the_sweep_is_drawn_on_a_logarithmic_axis(report: dict[str, Any]) -> None:
    drawing = svg.draw_sweep(report["heads"][0], 0.025)
    assert drawing is not None
    assert (drawing.ticks[0], drawing.ticks[-1]) == ((0.0, "0.005"), (svg.WIDTH, "0.5"))
    positions = {label: x for x, label in drawing.ticks}
    assert positions["0.05"] == pytest.approx(svg.WIDTH / 2, abs=0.01)  # the geometric middle
    assert drawing.mark == positions["0.025"]
    greedy = drawing.curves["greedy"]
    assert greedy[2][1] == pytest.approx(svg.HEIGHT * (1 - 137 / 990), abs=0.01)


def test_an_epsilon_outside_the_sweep_is_not_marked(report: dict[str, Any]) -> None:
    drawing = svg.draw_sweep(report["heads"][0], 0.7)
    assert drawing is not None
    assert drawing.mark is None


def test_one_point_is_no_curve(report: dict[str, Any]) -> None:
    head = report["heads"][0]
    head["sweep"] = head["sweep"][:1]
    assert svg.draw_sweep(head, 0.025) is None
    assert "polyline" not in Page(to_html(report)).tags
