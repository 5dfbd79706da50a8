"""Text for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit.words import did_you_mean, megabytes, printable


@given(st.text(), st.integers(1, 300))
def test_a_printable_line_has_no_control_characters_and_fits(text: str, limit: int) -> None:
    line = printable(text, limit)
    assert line.isprintable()
    assert len(line) <= limit


@pytest.mark.parametrize("text", ["::", ":::", ":::::warning::", "a::b:::c"])
def test_no_two_colons_are_left(text: str) -> None:
    assert "::" not in printable(text)
    assert printable(text).replace("\\x3a", ":") == text


@given(st.text(min_size=201))
def test_without_a_limit_nothing_is_cut(text: str) -> None:
    line = printable(text, None)
    assert len(line) >= len(text)
    assert printable(line, None) == line


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "of unknown size"),
        (12, "12 bytes"),
        (99_999, "99,999 bytes"),
        (67_100_000, "67.1 MB"),
    ],
)
def test_sizes_are_in_decimal_units(size: int | None, text: str) -> None:
    assert megabytes(size) == text


@pytest.mark.parametrize(
    ("word", "choices", "text"),
    [
        ("DINO_ViTS16", ["dino_vits16", "msn"], "Did you mean dino_vits16?"),
        ("gini", ["Gini"], "Did you mean Gini?"),
        ("swav2", ["swav1", "swav3", "sela"], "Did you mean swav3 or swav1?"),
        ("zzz", ["dino"], ""),
        ("dino", [], ""),
        ("heads", ["head\x1bs"], "Did you mean head\\x1bs?"),
    ],
)
def test_the_choices_most_like_a_word_are_named(word: str, choices: list[str], text: str) -> None:
    assert did_you_mean(word, choices) == text


def test_what_the_choices_are_can_be_said() -> None:
    found = did_you_mean("lst", ["list", "last"], what="the command ", most=1)
    assert found in ("Did you mean the command list?", "Did you mean the command last?")
