from __future__ import annotations

import copy
from typing import Any

import pytest

from collapse_audit.report.table import to_table


@pytest.fixture
def nasty(report: dict[str, Any]) -> dict[str, Any]:
    """The largest numbers and the longest and strangest names that a report may hold."""
    head = report["heads"][0]
    report["source"]["spec"] = "deep/" * 60 + "\x1b[31mred\n\N{SNOWMAN}.pth"
    head["name"] = "module." * 40 + "head"
    head["k"], head["d"], head["dtype"] = 1048576, 65536, "float64"
    head["unique"] = {
        "greedy": 1048575,
        "components": 1048570,
        "isolated": 1048574,
        "bracket": [1048570, 1048575],
        "order_range": [1048571, 1048575],
        "definition_independent": False,
    }
    head["unique_fraction"] = 1048575 / 1048576
    head["redundancy_factors"]["histogram"] = [[1, 1048574], [2, 1], [524288, 1]]
    head["redundancy_factors"]["max"] = 524288
    head["published"] = {
        "unique": 1048575,
        "source": "A very long citation " * 20,
        "others": [{"unique": 908, "source": "x" * 300}],
    }
    for row in head["sweep"]:
        row |= {"greedy": 1048575, "components": 1048575, "isolated": 1048575}
    head["norms"] = {"min": 1e-30, "median": 123456.789, "max": 1e30, "max_spread_in_group": 1e9}
    return report


def line_with(table: str, label: str) -> str:
    (line,) = [line for line in table.splitlines() if line.startswith(label)]
    return line


@pytest.mark.parametrize("width", [-5, 0, 72, 80, 100, 1000])
def test_no_line_is_wider_than_asked_for_whatever_the_values(
    nasty: dict[str, Any], width: int
) -> None:
    widest = min(max(width, 72), 100)
    assert max(map(len, to_table(nasty, width=width).splitlines())) <= widest


def test_names_from_a_file_cannot_move_the_cursor_or_break_a_line(nasty: dict[str, Any]) -> None:
    nasty["heads"][1]["name"] = "a\x1b]0;title\x07\r\nb"
    text = to_table(nasty)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "a\\x1b]0;title\\x07\\r\\nb, teacher" in text


def test_the_first_sentence_says_what_m_means(report: dict[str, Any]) -> None:
    text = to_table(report)
    assert "13.8 % of the prototypes are unique: 990 prototypes, 137 different directions." in text


def test_a_healthy_head_is_called_healthy(report: dict[str, Any]) -> None:
    head = report["heads"][0]
    head["k"] = head["unique"]["greedy"] = 137
    assert "All 137 prototypes are unique." in to_table(report)


def test_the_bracket_is_ordered_and_explained(report: dict[str, Any]) -> None:
    text = to_table(report)
    assert "134 (components) <= smallest cover <= 137 (greedy cover)" in text
    assert "4 (components) <= smallest cover <= 4 (greedy cover)" in text


def test_the_bracket_of_later_reports_is_shown(report: dict[str, Any]) -> None:
    report["heads"][0]["unique"] |= {"bracket": [135, 137], "order_range": [135, 139]}
    report["heads"][1]["unique"] |= {"bracket": [4, 4], "definition_independent": True}
    text = " ".join(to_table(report).split())
    assert "135 to 137 in any scan order, 135 to 139 in those tried; 134 components" in text
    assert "M = 4 under every counting rule and in every order" in text


def test_published_counts_stand_beside_ours_with_their_distance(report: dict[str, Any]) -> None:
    report["heads"][0]["published"]["others"] = [{"unique": 137, "source": "Others 2026"}]
    text = to_table(report)
    assert "140 (ours is -3), Example and Example (2024), Table 2" in text
    assert "137 (the same as ours), Others 2026" in text


def test_every_number_of_the_counts_is_there(report: dict[str, Any]) -> None:
    text = to_table(report)
    assert "redundancy factors  largest 303, mean 7.23 (K / M), Gini 0.760" in text
    assert "26.3 of 137" in text
    assert "61 prototypes without a duplicate" in text
    assert "1 prototype without a duplicate" in text
    assert "12 prototypes with exactly the direction" in line_with(text, "exact duplicates")
    assert "norm 0.412" in line_with(text, "mean direction")
    assert "1.60e-37 pairs" in line_with(text, "by chance")


def test_the_sweep_has_one_line_per_epsilon_and_marks_that_of_the_report(
    report: dict[str, Any],
) -> None:
    lines = to_table(report).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("  epsilon"))
    rows = [line.split() for line in lines[start + 1 : start + 8]]
    assert [float(row[0]) for row in rows] == [0.005, 0.0125, 0.025, 0.05, 0.1, 0.25, 0.5]
    assert [row[-1] == "<" for row in rows] == [False, False, True, False, False, False, False]
    assert rows[2] == ["0.025", "12.8", "137", "13.8", "%", "-", "134", "61", "<"]


def test_the_nearest_cosines_line_up_with_those_of_random_directions(
    report: dict[str, Any],
) -> None:
    text = to_table(report)
    ours, chance = line_with(text, "  this head"), line_with(text, "  random")
    assert ours.split()[2:] == [
        "0.3125",
        "0.4100",
        "0.9700",
        "0.9999",
        "<1.0000",
        "1.0000",
        "1.0000",
    ]
    assert chance.split()[1:] == ["-", "0.3100", "0.3300", "0.3700", "0.4200", "0.4400", "-"]
    assert len(ours) == len(chance)


def test_the_histogram_shows_every_octave_and_a_block_for_the_smallest(
    report: dict[str, Any],
) -> None:
    table = to_table(report)
    rows = [line.split() for line in table.splitlines() if "\N{FULL BLOCK}" in line]
    assert rows[0][:3] == ["1", "61", "61"]
    assert rows[7][:3] == ["256-511", "1", "303"]
    assert all(len(row[-1]) >= 1 for row in rows)
    assert "128-255          0           0" in table


def test_what_a_report_does_not_hold_is_left_out(report: dict[str, Any]) -> None:
    only_least = copy.deepcopy(report)
    only_least["heads"] = only_least["heads"][1:]
    text = to_table(only_least)
    for absent in ("epsilon  degrees", "nearest cosine", "published", "norms", "by chance"):
        assert absent not in text


def test_only_the_bars_are_outside_ascii(report: dict[str, Any]) -> None:
    assert {c for c in to_table(report) if not c.isascii()} == {"\N{FULL BLOCK}"}
