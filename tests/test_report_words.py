from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit.report import words


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.0, "0.0 %"),
        (1 / 1048576, "< 0.1 %"),
        (0.0164, "1.6 %"),
        (0.5, "50.0 %"),
        (1048575 / 1048576, "> 99.9 %"),
        (1.0, "100.0 %"),
    ],
)
def test_a_share_never_rounds_to_nothing_or_to_everything(fraction: float, text: str) -> None:
    assert words.percent(fraction) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1.0000"), (0.99999, "<1.0000"), (0.9999, "0.9999"), (-1.0, "-1.0000"), (None, "-")],
)
def test_only_an_exact_copy_has_a_cosine_of_one(value: float | None, text: str) -> None:
    assert words.cosine(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (60.8, "60.8"),
        (0.7512, "0.751"),
        (1.0, "1.00"),
        (65536.0, "65,536"),
        (1.6e-37, "1.60e-37"),
        (None, "-"),
    ],
)
def test_numbers_have_three_significant_digits(value: float | None, text: str) -> None:
    assert words.number(value) == text


def test_the_default_threshold_is_12_8_degrees() -> None:
    assert words.degrees(0.025) == f"{math.degrees(math.acos(0.975)):.1f}" == "12.8"


@given(st.text(), st.integers(8, 40))
def test_shortened_text_fits_and_cannot_move_the_cursor(text: str, width: int) -> None:
    line = words.shorten(text, width)
    assert len(line) <= width
    assert line.isprintable()


def test_shortening_keeps_both_ends_of_a_path() -> None:
    line = words.shorten("runs/" + "x" * 200 + "/checkpoint.pth", 30)
    assert line.startswith("runs/")
    assert line.endswith("eckpoint.pth")


@given(
    st.dictionaries(st.integers(1, 70000), st.integers(1, 500), min_size=1, max_size=30).map(
        lambda pairs: [[r, n] for r, n in sorted(pairs.items())]
    )
)
def test_octaves_lose_no_prototype_and_contain_their_factors(histogram: list[list[int]]) -> None:
    rows = words.octaves(histogram)
    assert sum(unique for _, unique, _ in rows) == sum(n for _, n in histogram)
    assert sum(prototypes for _, _, prototypes in rows) == sum(r * n for r, n in histogram)
    for octave, (label, unique, _) in enumerate(rows):
        bounds = [int(bound.replace(",", "")) for bound in label.split("-")]
        assert (bounds[0], bounds[-1]) == (2**octave, 2 ** (octave + 1) - 1)
        assert unique == sum(n for r, n in histogram if bounds[0] <= r <= bounds[-1])


def test_octaves_of_toy_factors() -> None:
    assert words.octaves([[1, 2], [3, 1], [9, 1]]) == [
        ("1", 2, 2),
        ("2-3", 1, 3),
        ("4-7", 0, 0),
        ("8-15", 1, 9),
    ]
