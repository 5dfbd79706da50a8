"""JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit.report.csv_text import to_csv
from collapse_audit.report.json_text import to_json
from collapse_audit.report.markdown import to_markdown


def rows_of_tables(markdown: str) -> list[list[int]]:
    """Cells per row of each table, counting the bars that are not escaped."""
    tables: list[list[int]] = [[]]
    for line in markdown.splitlines():
        if line.startswith("|"):
            tables[-1].append(len(re.findall(r"(?<!\\)\|", line)) - 1)
        elif tables[-1]:
            tables.append([])
    return [table for table in tables if table]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_json_reads_back_as_it_was(document: dict[str, Any]) -> None:
    text = to_json(document)
    assert json.loads(text) == document
    assert text.isascii()


def test_json_keeps_pairs_on_one_line_for_small_diffs(report: dict[str, Any]) -> None:
    text = to_json(report)
    assert "\n          [1, 61],\n" in text
    assert json.loads(text) == report


def test_json_refuses_what_is_not_a_number(report: dict[str, Any]) -> None:
    report["heads"][0]["unique_fraction"] = float("nan")
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        to_json(report)


def test_csv_has_one_row_per_head_with_the_values_of_the_report(report: dict[str, Any]) -> None:
    first, second = csv.DictReader(io.StringIO(to_csv(report)))
    assert (first["head"], second["head"]) == ("head", "ibot_head")
    assert (first["k"], first["unique"], first["components"]) == ("990", "137", "134")
    assert float(first["unique_fraction"]) == report["heads"][0]["unique_fraction"]
    assert first["published_source"] == "Example and Example (2024), Table 2"
    assert second["published_unique"] == second["norm_min"] == second["nearest_cosine_q05"] == ""


def test_csv_has_the_same_columns_whatever_the_report_holds(report: dict[str, Any]) -> None:
    rich, poor = ({**report, "heads": [head]} for head in report["heads"])
    assert to_csv(rich).splitlines()[0] == to_csv(poor).splitlines()[0]


def test_csv_quotes_names_with_commas_quotes_and_line_breaks(report: dict[str, Any]) -> None:
    report["source"]["spec"] = 'a, "b"\nc.pth'
    (first, _) = csv.DictReader(io.StringIO(to_csv(report), newline=""))
    assert first["source"] == 'a, "b"\\nc.pth'  # on one line


def test_every_markdown_table_is_rectangular(report: dict[str, Any]) -> None:
    report["heads"][0]["tensor_keys"] = ["a|b", "c\nd", "`e`", "<script>"]
    report["heads"][0]["published"]["source"] = "A | B"
    tables = rows_of_tables(to_markdown(report))
    assert [set(table) for table in tables] == [{2}, {4}, {7}, {8}, {3}, {2}, {4}]


def test_markdown_says_the_headline_and_the_provenance(report: dict[str, Any]) -> None:
    text = to_markdown(report)
    assert (
        "**13.8 % of the prototypes are unique: 990 prototypes, 137 different directions.**" in text
    )
    assert "epsilon 0.025, rule: greedy cover, certified, sha256 `5f5f" in text
    assert "| 0.025 | 12.8 | 137 | 13.8 % | - | 134 | 61 |" in text


def test_markdown_escapes_what_comes_out_of_files(report: dict[str, Any]) -> None:
    report["heads"][0]["name"] = "<img src=x>[link](http://example.org)"
    text = to_markdown(report)
    assert "<img" not in text.replace("\\<", "")
    assert "\\[link\\]" in text
