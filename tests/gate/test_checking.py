"""Thresholds applied to reports: verdicts, and what cannot be compared."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from collapse_audit.errors import ParameterError, ReportError
from collapse_audit.gate import check
from collapse_audit.gate.metrics import METRICS
from collapse_audit.gate.pairing import DIFFERENCES
from collapse_audit.head_audit import build_report
from tests.gate.conftest import INCOMPARABLE, edited, head_of


def test_a_head_is_not_worse_than_itself(report: dict[str, Any]) -> None:
    not_here = ("mlcd", "stored_usage")  # from data, and from files of codebooks
    everything = [f"{path}:0" for path in METRICS if not path.startswith(not_here)]
    verdict = check(report, report, everything)
    assert verdict.passed
    assert verdict.exit_code == 0
    assert len(verdict.checks) == len(everything)
    assert str(verdict).endswith(f"\nall {len(everything)} checks passed")


def test_by_default_m_must_not_fall_and_the_largest_group_must_not_grow(
    report: dict[str, Any],
) -> None:
    worse = head_of([4, 1, 1, 1, 1, 1, 1])
    verdict = check(worse, report)
    assert [c.metric for c in verdict.failed] == ["unique.greedy", "redundancy_factors.max"]
    assert [(c.baseline, c.value, c.limit) for c in verdict.failed] == [
        (8, 7, ">= 8"),
        (3, 4, "<= 3"),
    ]
    assert verdict.exit_code == 1


def test_a_level_of_the_sweep_can_be_checked(report: dict[str, Any]) -> None:
    verdict = check(report, None, ["sweep[0.1].greedy<8", "sweep[0.1].components<9"])
    assert [c.status for c in verdict.checks] == ["passed", "failed"]
    with pytest.raises(ReportError, match=r"sweep\[0.3\].greedy was not measured"):
        check(report, None, ["sweep[0.3].greedy<8"])


def test_nothing_to_check_is_not_green(report: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=r"nothing to check. Give `baseline=FILE`"):
        check(report)


def test_a_change_without_a_baseline_is_refused(report: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="'M:-5%' compares with a baseline"):
        check(report, None, ["M:-5%"])


def test_without_a_baseline_changes_can_be_skipped_but_gates_run(report: dict[str, Any]) -> None:
    verdict = check(report, None, ["M:-5%", "M<9"], skip_changes=True)
    assert [c.status for c in verdict.checks] == ["skipped", "failed"]


def test_a_metric_that_was_not_measured_is_an_error_and_says_where(report: dict[str, Any]) -> None:
    poor = copy.deepcopy(report)
    poor["heads"][0]["nearest_cosine"] = None
    with pytest.raises(ReportError, match=r"the report: nearest_cosine.max was not measured"):
        check(poor, report, ["nearest_cosine.max:+0"])
    with pytest.raises(ReportError, match=r"the baseline: .* with `nearest=True`"):
        check(report, poor, ["nearest_cosine.max:+0"])
    with pytest.raises(ReportError, match="collapse-audit mlcd"):
        check(report, None, ["perplexity<5"])


@pytest.mark.parametrize("difference", INCOMPARABLE)
def test_reports_made_in_different_ways_are_compared_only_if_told_so(
    report: dict[str, Any], difference: Any
) -> None:
    other = edited(report, INCOMPARABLE[difference])
    with pytest.raises(ReportError, match=f"here and .* there, .* `allow={difference}`"):
        check(report, other, ["M:-5%"])
    assert check(report, other, ["M:-5%"], allow=[difference]).passed
    assert check(report, other, ["M<8"]).passed, "absolute limits do not need the baseline"


def test_mlcd_of_another_temperature_is_compared_only_if_told_so(report: dict[str, Any]) -> None:
    def with_mlcd(temperature: float) -> dict[str, Any]:
        mlcd = {"temperature": temperature, "mutual_information": 1.0}
        return edited(report, lambda r: r["heads"][0].update(mlcd=mlcd))

    new, old = with_mlcd(0.04), with_mlcd(0.07)
    with pytest.raises(ReportError, match=r"mlcd.temperature of prototypes is 0.04 here and 0.07"):
        check(new, old, ["mlcd.mutual_information:-0"])
    assert check(new, old, ["mlcd.mutual_information:-0"], allow=["mlcd"]).passed
    assert check(new, old, ["M:-0"]).passed
    assert set(INCOMPARABLE) | {"mlcd"} == set(DIFFERENCES)


def test_heads_are_matched_by_name_and_branch_in_any_order() -> None:
    a, b = head_of([2, 1], name="dino_head"), head_of([1, 1, 1], name="ibot_head")
    verdict = check(build_report([a, b]), build_report([b, a]), ["M:0"])
    assert [(c.head, c.baseline, c.value) for c in verdict.checks] == [
        ("dino_head", 2, 2),
        ("ibot_head", 3, 3),
    ]


def test_a_head_that_is_missing_is_named() -> None:
    a, b = head_of([2, 1], name="dino_head"), head_of([2, 1], name="ibot_head")
    with pytest.raises(ReportError, match=r"same heads: ibot_head\. Choose one with"):
        check(build_report([a]), build_report([a, b]))


def test_two_heads_of_one_name_are_not_guessed_at() -> None:
    twins = build_report([head_of([2, 1]), head_of([1, 1, 1])])
    with pytest.raises(ReportError, match=r"same name and branch. Make a report of each"):
        check(twins, twins)


@pytest.mark.parametrize("text", ["1e999", "-1e999", "1" + 400 * "0"])
def test_a_number_beyond_float64_is_a_damaged_report(report: dict[str, Any], text: str) -> None:
    damaged = edited(report, lambda r: r["heads"][0]["unique"].update(greedy=json.loads(text)))
    with pytest.raises(ReportError, match=r"unique.greedy is out of range"):
        check(damaged, report, ["M:-5%"])


def test_single_heads_are_a_pair_whatever_their_names() -> None:
    assert check(head_of([2, 1], name="old"), head_of([2, 1], name="new")).passed
