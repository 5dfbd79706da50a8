"""The page from top to bottom: verdict, gauge, what to do next, figures, tables, glossary."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import numpy as np
import pytest

from collapse_audit.gate import compare
from collapse_audit.head_audit import audit_prototypes
from collapse_audit.report import svg
from collapse_audit.report.advice import next_steps
from collapse_audit.report.group_table import group_table
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
    for value in (
        report["source"]["sha256"],
        "ab" * 32,
        "epsilon 0.025",
        "greedy cover, certified",
    ):
        assert value in part


def test_the_gauge_shows_shares_of_k() -> None:
    counts: Any = {"greedy": 50, "components": 20, "isolated": 0, "n_eff": 25.0}
    assert svg.draw_gauge(200, counts, [20, 60]) == {
        "unique": (0.0, svg.WIDTH / 4),
        "bracket": (svg.WIDTH / 10, svg.WIDTH / 5),
        "n_eff": (svg.WIDTH / 8, 3.0),  # a line that can be seen
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
    assert found[3].show["threshold"] == "epsilon 0.05 (18.2 degrees), the report has 0.025"


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


def test_the_groups_are_on_the_page_largest_first_with_every_prototype() -> None:
    groups = np.array([1, 0, 0, 2, 1, 0])
    found = group_table(groups)
    assert found.members == "1,2,5;0,4;3"
    assert found.rows == (("0", "1", "3", "1, 2, 5"), ("1", "0", "2", "0, 4"), ("2", "3", "1", "3"))
    assert (found.shown, found.total) == (3, 3)


def test_the_first_of_a_group_is_its_leader() -> None:
    rows = np.random.default_rng(0).standard_normal((300, 3))
    audit = audit_prototypes(rows, epsilon=0.1)
    members = group_table(audit.groups).members.split(";")
    assert [int(part.split(",")[0]) for part in members] == audit.redundancy.leaders.tolist()
    assert [[*map(int, p.split(","))] for p in members] == [
        audit.members(group).tolist() for group in range(audit.num_unique)
    ]


@pytest.mark.parametrize(("longest", "shown"), [(5, 0), (6, 1), (11, 2), (12, 3)])
def test_groups_that_there_is_no_room_for_are_counted(longest: int, shown: int) -> None:
    found = group_table(np.array([1, 0, 0, 2, 1, 0]), longest)
    assert found.shown == shown
    assert len(found.members) <= longest
    assert len(found.rows) == 3


def test_a_page_without_room_for_all_groups_says_where_they_are(report: dict[str, Any]) -> None:
    report["heads"] = report["heads"][:1]
    groups = np.zeros(300_000, dtype=np.int64)
    groups[-1] = 1
    page = Page(to_html(report, groups=[[groups]]))
    assert "room for the 0 largest of 2 groups; --groups FILE writes all" in page.text
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 299,987 more" in page.text
    assert "data-groups" not in dict(page.attributes)
    assert "groups-bar" not in dict(page.attributes).values()


@pytest.mark.parametrize("m", [1, 900, 65_536])
def test_a_page_of_65536_prototypes_stays_below_two_megabytes(
    report: dict[str, Any], m: int
) -> None:
    groups = np.sort(np.random.default_rng(0).integers(0, m, 65_536)) if m < 65_536 else None
    _, labels = np.unique(np.arange(65_536) if groups is None else groups, return_inverse=True)
    order = np.argsort(-np.bincount(labels), kind="stable")
    labels = np.argsort(order)[labels]
    heads = [report["heads"][0]] * 2
    text = to_html(report | {"heads": heads}, groups=[[labels] * 2])
    assert "has room for" not in text
    assert len(text.encode()) < 2_000_000


def test_the_policy_names_the_script_of_the_page_alone(report: dict[str, Any]) -> None:
    text = to_html(report)
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [value for _, value in Page(text).attributes if "default-src" in value]
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    for word in ("innerHTML", "insertAdjacentHTML", "eval", "fetch", "http", "import"):
        assert word not in script


def test_a_comparison_is_a_page_with_the_shares_of_all_sources() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 16))
    whole, half = audit_prototypes(rows), audit_prototypes(rows[np.arange(40) // 2])
    found = compare(whole, half, half)
    text = found.to_html()
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert {name for name, _ in page.attributes}.isdisjoint({"src", "href", "style"})
    assert "Unique prototypes: 100.0 % in A, 50.0 % in B (worse), 50.0 % in C (worse)." in page.text
    assert text.count('width="260.0" height="16"') == 2
    start, end = page.text.index('{\n  "schema"'), page.text.rindex("}") + 1
    assert json.loads(page.text[start:end]) == found.to_dict()


def test_a_head_compared_by_distance_has_radii_for_levels() -> None:
    rows = np.random.default_rng(0).standard_normal((60, 4))
    report = audit_prototypes(rows, metric="euclidean").to_dict()
    (head,) = report["heads"]
    found = levels(head, report["parameters"])
    assert [level.show["unique"] for level in found] == [str(r["greedy"]) for r in head["sweep"]]
    (own,) = [level for level in found if level.own]
    assert own.show["threshold"] == f"radius {head['radius']:g}, that of this report"
    assert own.show["unique"] == str(head["unique"]["greedy"])
    assert "KoLeo" not in " ".join(next_steps(head))
    assert "Other radii" in to_html(report)
