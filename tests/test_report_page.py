"""The page from top to bottom: verdict, gauge, what to do next, figures, tables, glossary."""

from __future__ import annotations

from typing import Any

import pytest

from collapse_audit.report import svg
from collapse_audit.report.advice import next_steps
from collapse_audit.report.html import to_html
from collapse_audit.report.levels import levels
from tests.test_report_html import Page


def test_the_page_says_first_what_was_found_and_what_to_do(report: dict[str, Any]) -> None:
    report["heads"] = report["heads"][:1]
    text = to_html(report)
    order = (
        '<p class="headline">', 'class="gauge"', "What to do next", "<figure>", "stored as",
        "Provenance", "The report as JSON", "Glossary",
    )  # fmt: skip
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "@media print" in text
    assert 'type="radio"' not in text  # one head needs no tabs


def test_several_heads_are_tabs_that_need_no_script(report: dict[str, Any]) -> None:
    page = Page(to_html(report, report))
    values = page.attributes
    assert values.count(("type", "radio")) == 4
    assert values.count(("name", "heads-1")) == values.count(("name", "heads-2")) == 2
    assert values.count(("checked", "")) == 2  # the first head of each report
    ids = [value for name, value in values if name == "id"]
    assert len(ids) == len(set(ids)) == 4
    assert ids == [value for name, value in values if name == "for"]


def test_the_provenance_has_what_measuring_again_needs(report: dict[str, Any]) -> None:
    report["heads"][0]["tensor_sha256"] = {"teacher/head": "ab" * 32}
    text = Page(to_html(report)).text
    part = text[text.index("Provenance") : text.index("The report as JSON")]
    for value in (report["source"]["sha256"], "ab" * 32, "0.025", "greedy cover, certified"):
        assert value in part


def test_the_gauge_shows_shares_of_k() -> None:
    counts: Any = {"greedy": 50, "components": 20, "isolated": 0, "n_eff": 25.0}
    assert svg.draw_gauge(200, counts, [20, 60]) == {
        "unique": (0.0, svg.WIDTH / 4),
        "bracket": (svg.WIDTH / 10, svg.WIDTH / 5),
        "n_eff": (svg.WIDTH / 8, 2.0),  # a line that can be seen
    }
    del counts["n_eff"]  # a report of an earlier version
    assert set(svg.draw_gauge(200, counts, [50, 50])) == {"unique", "bracket"}


def test_each_epsilon_is_a_level_with_its_counts_and_its_place(report: dict[str, Any]) -> None:
    head = report["heads"][0]
    head["unique"]["bracket"] = [130, 140]
    found = levels(head, report["parameters"])
    drawing = svg.draw_sweep(head, 0.025)
    assert drawing is not None
    assert [level.mark for level in found] == [x for x, _ in drawing.ticks]
    assert [level.show["unique"] for level in found] == [str(r["greedy"]) for r in head["sweep"]]
    assert [level.own for level in found].index(True) == 2
    assert found[2].show["bracket"] == "130 to 140"
    assert found[3].show["bracket"] == "130 to 134"  # components to M
    assert found[3].show["epsilon"] == "0.05 (18.2 degrees), the report has 0.025"


def test_an_epsilon_that_the_sweep_lacks_is_a_level_too(report: dict[str, Any]) -> None:
    head = report["heads"][0]
    found = levels(head, report["parameters"] | {"epsilon": 0.03})
    assert len(found) == 8
    assert [level.own for level in found] == [False] * 3 + [True] + [False] * 4
    (only,) = levels(report["heads"][1], report["parameters"])  # without a sweep
    assert (only.own, only.mark) == (True, None)


def test_the_next_steps_follow_from_what_was_found(report: dict[str, Any]) -> None:
    full, least = report["heads"]
    assert "KoLeo-proto" in " ".join(next_steps(full))
    assert "collapse-audit mlcd" not in " ".join(next_steps(full))  # it was measured
    assert "bracket" not in " ".join(next_steps(full))  # 134 to 137 is narrow
    assert "collapse-audit mlcd" in " ".join(next_steps(least))
    assert "--no-sweep" in " ".join(next_steps(least))
    full["unique"]["bracket"] = [100, 150]
    assert "100 to 150 are possible" in " ".join(next_steps(full))


@pytest.mark.parametrize("kind", ["unique", "codebook"])
def test_koleo_is_no_advice_where_it_does_not_help(report: dict[str, Any], kind: str) -> None:
    head = report["heads"][0]
    if kind == "unique":
        head["unique"] = {"greedy": 990, "components": 990, "isolated": 990}
        assert next(next_steps(head)).startswith("There is nothing to mend")
    else:
        head["stored_usage"] = {}
    assert "KoLeo" not in " ".join(next_steps(head))
