"""The grammar of thresholds, and the metrics that it can name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit.errors import ParameterError
from collapse_audit.gate.metrics import ALIASES, METRICS, find_metric
from collapse_audit.gate.thresholds import Change, Gate, parse_threshold

# pytest-benchmark: a relative change, in the bad direction, must not exceed X %.
# mlflow: an absolute one must not exceed a number. Equality is never a failure of a change.
CHANGES = [
    # threshold, baseline, value, fails
    ("unique.greedy:-5%", 100, 95, False),
    ("unique.greedy:-5%", 100, 94, True),
    ("unique.greedy:5%", 100, 94, True),
    ("unique.greedy:5%", 100, 200, False),
    ("unique.greedy:+5%", 100, 106, True),
    ("unique.greedy:+5%", 100, 50, False),
    ("unique.greedy:-7%", 100, 93, False),  # 100 * (1 - 0.07) is 92.99999999999999 in floats
    ("unique.greedy:-30%", 10, 7, False),
    ("unique.greedy:-29.9%", 10, 7, True),
    ("unique.greedy:-0", 100, 100, False),
    ("unique.greedy:-0", 100, 99, True),
    ("unique.greedy:0", 100, 101, False),
    ("unique.greedy:0", 100, 99, True),
    ("unique.greedy:3", 100, 97, False),
    ("unique.greedy:3", 100, 96, True),
    ("redundancy_factors.max:+0", 3, 3, False),
    ("redundancy_factors.max:+0", 3, 4, True),
    ("redundancy_factors.max:+0", 3, 2, False),
    ("redundancy_factors.max:250%", 2, 7, False),
    ("redundancy_factors.max:+250%", 2, 8, True),
    ("exact_duplicates:+10%", 0, 0, False),
    ("exact_duplicates:+10%", 0, 1, True),
    ("unique.isolated:-10%", 0, 0, False),
    ("exact_duplicates:+1", 0, 1, False),
    ("nearest_cosine.median:+10%", -0.5, -0.46, False),
    ("nearest_cosine.median:+10%", -0.5, -0.44, True),
    ("nearest_cosine.median:-150%", 0.1, -0.1, True),
    ("nearest_cosine.median:-150%", 0.1, 0.0, False),
    ("redundancy_factors.gini:+0", 0.3, 0.1 + 0.2, False),  # one float64 step apart
    ("redundancy_factors.gini:+0", 0.3, 0.3000001, True),
    ("unique_fraction:-0", 0.7, 0.7 - 1e-16, False),
    ("unique_fraction:0.01", 0.90, 0.89, False),
    ("unique_fraction:0.01", 0.90, 0.889, True),
    ("norms.median:0.5", 1.0, 1.6, True),  # no way is worse: both count
    ("norms.median:0.5", 1.0, 0.4, True),
    ("norms.median:0.5", 1.0, 1.4, False),
    ("M:-1e1%", 100, 90, False),
    (" M : - .5 % ", 1000, 994, True),
]


@pytest.mark.parametrize(("text", "baseline", "value", "fails"), CHANGES)
def test_a_change_fails_only_beyond_its_limit(
    text: str, baseline: float, value: float, fails: bool
) -> None:
    threshold = parse_threshold(text)
    assert isinstance(threshold, Change)
    assert threshold.fails(value, baseline) is fails


GATES = [
    ("unique_fraction<0.9", 0.9, False),
    ("unique_fraction<0.9", 0.8999, True),
    ("unique_fraction<=0.9", 0.9, True),
    ("unique_fraction<0.7", 7 / 10, False),  # 0.7 is below 7/10 as a float
    ("unique_fraction >= 1", 1.0, True),
    ("M<1000", 1000, False),
    ("M<1000", 999, True),
    ("M<=1000", 1000, True),
    ("r_max>3", 3, False),
    ("r_max>3", 4, True),
    ("r_max>=3", 3, True),
    ("nearest_cosine.max>-0.5", -0.4, True),
    ("M<1e3", 999, True),
]


@pytest.mark.parametrize(("text", "value", "fails"), GATES)
def test_a_gate_fails_if_its_condition_holds(text: str, value: float, fails: bool) -> None:
    threshold = parse_threshold(text)
    assert isinstance(threshold, Gate)
    assert threshold.fails(value) is fails


@given(
    st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 99), st.sampled_from(["-", "+"])
)
def test_percentages_of_integers_are_exact(old: int, new: int, percent: int, sign: str) -> None:
    threshold = parse_threshold(f"k:{sign}{percent}%")
    assert isinstance(threshold, Change)
    change = new - old if sign == "+" else old - new
    assert threshold.fails(new, old) is (100 * change > percent * old)


@pytest.mark.parametrize(
    "text",
    [
        *("", "M", "M:", "M:%", "M:5%%", "M=3", "M==3", "M:--5", "M<", "M<abc", "<3", "M:5 per"),
        *("M:nan", "M<inf", "M<5%", "M:5%,r_max:3", "M>>3", "M:1e9999", "M<" + 31 * "9"),
    ],
)
def test_a_malformed_threshold_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(ParameterError, match=r"is not a threshold. Write metric:-5%"):
        parse_threshold(text)


@pytest.mark.parametrize(
    "text",
    [
        *("M:-100%", "unique_fraction:250%", "M<-5", "M<0", "M<=-1", "sweep[0.1].greedy<0"),
        *("unique_fraction>1", "unique_fraction>=1.1", "gini>1", "nearest_cosine.max<-1"),
    ],
)
def test_a_threshold_that_can_never_fail_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="can never fail"):
        parse_threshold(text)


@pytest.mark.parametrize("text", ["M>-5", "M>=0", "unique_fraction<1.5", "unique_fraction<=1"])
def test_a_threshold_that_always_fails_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="always fails"):
        parse_threshold(text)


@pytest.mark.parametrize("text", ["M<=0", "M>0", "unique_fraction<1", "unique_fraction>=1"])
def test_a_threshold_at_the_end_of_a_range_is_none_of_these(text: str) -> None:
    assert parse_threshold(text).text == text


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("unique_fracton", "unique_fraction"),
        ("redundancy_factor.max", "redundancy_factors.max"),
        ("Gini", "gini"),
        ("median", "nearest_cosine.median"),
        ("mlcd.mutual_info", "mlcd.mutual_information"),
        ("sweep[1.2.3].greedy", "unique.greedy"),
    ],
)
def test_an_unknown_metric_gets_a_suggestion(typed: str, meant: str) -> None:
    with pytest.raises(ParameterError, match=f"Did you mean .*{meant}"):
        find_metric(typed)


def test_short_names_are_metrics_and_hide_none() -> None:
    assert set(ALIASES.values()) <= set(METRICS)
    assert not set(ALIASES) & set(METRICS)


def test_every_number_that_describes_a_head_is_a_metric(report: dict[str, Any]) -> None:
    def leaves(value: object, path: str) -> set[str]:
        if isinstance(value, dict):
            return {leaf for key in value for leaf in leaves(value[key], f"{path}.{key}")}
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return {path[1:]} if number else set()

    head = {key: value for key, value in report["heads"][0].items() if key != "null"}
    saebench = ("average_max_decoder_cosine_sim", "max_decoder_cosine_sim")
    other_names = {f"nearest_cosine.{name}" for name in saebench}  # for readers of its results
    assert leaves(head, "") - set(METRICS) == other_names
