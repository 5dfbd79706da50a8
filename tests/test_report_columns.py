"""Columns of text and Markdown tables, against plain definitions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit.report.columns import escape, pipe_table, text_columns
from collapse_audit.words import printable

# words without blanks, so that a line splits into its cells again
cells = st.text("abcxyz0123456789|*_\\<\x1b\n\N{SNOWMAN}", min_size=1, max_size=12)
tables = st.integers(1, 5).flatmap(
    lambda width: st.tuples(
        st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=6),
        st.lists(st.sampled_from(["<", ">", "<7", ">9"]), min_size=width, max_size=width),
    )
)


def plain(cell: str) -> str:
    return cell.replace("\x1b", "\\x1b").replace("\n", "\\n")


@given(tables)
def test_every_cell_stands_at_its_side_of_a_column_as_wide_as_the_widest(
    table: tuple[list[list[str]], list[str]],
) -> None:
    rows, layout = table
    titles, *others = rows
    titles = list(map(plain, titles))
    lines = text_columns(titles, others, " ".join(layout))
    shown = [titles, *(list(map(plain, row)) for row in others)]
    assert len(lines) == len(shown)
    start = 0
    for column, word in enumerate(layout):
        texts = [row[column] for row in shown]
        width = max(int(word[1:] or 0), *map(len, texts))
        for line, text in zip(lines, texts, strict=True):
            found = line.ljust(start + width)[start : start + width]
            blank = " " * (width - len(text))
            assert found == (blank + text if word[0] == ">" else text + blank)
        start += width + 2
    assert all(line == line.rstrip() for line in lines)


@given(tables)
def test_a_line_splits_into_its_cells(table: tuple[list[list[str]], list[str]]) -> None:
    rows, _ = table
    assert [line.split() for line in text_columns((), rows)] == [
        list(map(plain, row)) for row in rows
    ]


@pytest.mark.parametrize(
    ("rows", "most", "lines"),
    [
        (3, None, ["n", "0", "1", "2"]),
        (3, 3, ["n", "0", "1", "2"]),
        (3, 2, ["n", "0", "1", "… and 1 more"]),
        (5000, 1, ["n", "0", "… and 4,999 more"]),
        (0, 2, ["n"]),
    ],
)
def test_rows_beyond_the_limit_are_counted(rows: int, most: int | None, lines: list[str]) -> None:
    assert text_columns(("n",), ([str(i)] for i in range(rows)), most=most) == lines


def test_nothing_is_no_line() -> None:
    assert text_columns((), []) == []


def test_the_gap_can_be_narrower() -> None:
    assert text_columns((), [("a", "bc"), ("d", "e")], "<3 >", gap=" ") == ["a   bc", "d    e"]


def test_a_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        text_columns(("a", "b"), [("c",)])


def read_row(line: str) -> list[str]:
    """The cells that GitHub shows: a backslash makes the next character literal, a bar ends."""
    found, literal = [""], False
    for character in line.replace("&#8203;", ""):  # an empty character, so that none is a link
        if literal or character not in "\\|":
            found[-1] += character
            literal = False
        elif character == "\\":
            literal = True
        else:
            found.append("")
    return [cell.strip(" ") for cell in found[1:-1]]


@given(tables)
def test_a_pipe_table_is_read_back(table: tuple[list[list[str]], list[str]]) -> None:
    rows, layout = table
    titles = [f"t{n}" for n in range(len(layout))]
    head, rule, *body = pipe_table(titles, rows, " ".join(layout))
    assert read_row(head) == titles
    assert read_row(rule) == ["--:" if word[0] == ">" else "---" for word in layout]
    assert [read_row(line) for line in body] == [list(map(plain, row)) for row in rows]


@given(st.text())
def test_escaped_text_shows_as_it_is_and_holds_no_markup(text: str) -> None:
    line = escape(text)
    assert read_row(f"|{line}|") == [printable(text, None).strip(" ")]
    bare = line.replace("&#8203;", "")
    assert re.search(r"(?<!\\)(?:\\\\)*[`*\[\]<>|#~$&]", bare) is None


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("dino_vits16", "dino_vits16"),
        ("a__b", "a__b"),
        ("_x_ y_z", r"\_x\_ y_z"),
        ("__init__", r"\_\_init\_\_"),
        ("*_x", r"\*\_x"),
        ("a_|", r"a\_\|"),
    ],
)
def test_underscores_are_escaped_where_they_could_be_emphasis(text: str, escaped: str) -> None:
    assert escape(text) == escaped
