"""Thresholds, baselines and heads side by side."""

from __future__ import annotations

import copy
import json
import os
import stat
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit.audit import CollapseAudit, audit_prototypes, build_report
from collapse_audit.errors import ParameterError, ReportError
from collapse_audit.gate import (
    ALIASES,
    DIFFERENCES,
    METRICS,
    Change,
    Gate,
    check,
    compare,
    compare_groups,
    find_metric,
    find_settings,
    parse_report,
    parse_threshold,
    read_report,
    read_settings,
    write_report,
)
from collapse_audit.prototypes import Prototypes
from collapse_audit.report.comparison_text import comparison_to_table


def head_of(copies: list[int], **keywords: Any) -> CollapseAudit:
    """A head whose prototype m is repeated copies[m] times, all directions orthogonal."""
    weight = np.repeat(np.eye(len(copies)), copies, axis=0)
    return audit_prototypes(Prototypes.from_weight(weight, **keywords))


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """K = 10, M = 8, the largest redundancy factor is 3."""
    return head_of([3, 1, 1, 1, 1, 1, 1, 1]).to_dict()


# --- the grammar ---------------------------------------------------------------------------------

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


@pytest.mark.parametrize("text", ["M:-100%", "unique_fraction:250%"])
def test_a_threshold_that_can_never_fail_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="can never fail"):
        parse_threshold(text)


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
    assert leaves(head, "") - set(METRICS) == set()


# --- check ---------------------------------------------------------------------------------------


def test_a_head_is_not_worse_than_itself(report: dict[str, Any]) -> None:
    everything = [f"{path}:0" for path in METRICS if not path.startswith("mlcd")]
    verdict = check(report, report, everything)
    assert verdict.passed
    assert verdict.exit_code == 0
    assert len(verdict.checks) == len(everything)
    assert str(verdict) == f"all {len(everything)} checks passed"


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
    with pytest.raises(ParameterError, match=r"nothing to check. Give --baseline"):
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
    with pytest.raises(ReportError, match=r"the baseline: .* without --no-nearest"):
        check(report, poor, ["nearest_cosine.max:+0"])
    with pytest.raises(ReportError, match="collapse-audit mlcd"):
        check(report, None, ["perplexity<5"])


def edited(report: dict[str, Any], edit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    other = copy.deepcopy(report)
    edit(other)
    return other


INCOMPARABLE = {
    "schema": lambda r: r.update(schema_version="2.0"),
    "epsilon": lambda r: r["parameters"].update(epsilon=0.05),
    "rule": lambda r: r["parameters"].update(rule="components"),
    "k": lambda r: r["heads"][0].update(k=11),
    "branch": lambda r: r["heads"][0].update(branch="student"),
}


@pytest.mark.parametrize("difference", INCOMPARABLE)
def test_reports_made_in_different_ways_are_compared_only_if_told_so(
    report: dict[str, Any], difference: Any
) -> None:
    other = edited(report, INCOMPARABLE[difference])
    with pytest.raises(ReportError, match=f"in the baseline, .* --allow {difference}"):
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
    with pytest.raises(ReportError, match=r"same heads: ibot_head \(None\). Choose one with"):
        check(build_report([a]), build_report([a, b]))


def test_two_heads_of_one_name_are_not_guessed_at() -> None:
    twins = build_report([head_of([2, 1]), head_of([1, 1, 1])])
    with pytest.raises(ReportError, match=r"same name and branch. Make a baseline of each"):
        check(twins, twins)


@pytest.mark.parametrize("text", ["1e999", "-1e999", "1" + 400 * "0"])
def test_a_number_beyond_float64_is_a_damaged_report(report: dict[str, Any], text: str) -> None:
    damaged = edited(report, lambda r: r["heads"][0]["unique"].update(greedy=json.loads(text)))
    with pytest.raises(ReportError, match=r"unique.greedy is out of range"):
        check(damaged, report, ["M:-5%"])


def test_single_heads_are_a_pair_whatever_their_names() -> None:
    assert check(head_of([2, 1], name="old"), head_of([2, 1], name="new")).passed


# --- files ---------------------------------------------------------------------------------------


def test_a_written_baseline_reads_back_the_same(tmp_path: Path, report: dict[str, Any]) -> None:
    path = tmp_path / "baseline.json"
    write_report(report, path)
    assert read_report(path) == report
    assert [p.name for p in tmp_path.iterdir()] == ["baseline.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_writing_through_a_link_keeps_the_link(tmp_path: Path, report: dict[str, Any]) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "baseline.json")
    write_report(report, link)
    assert link.is_symlink()
    assert read_report(tmp_path / "baseline.json") == report


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_baseline(
    tmp_path: Path, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "baseline.json"
    path.write_text("old", encoding="utf-8")

    def crash(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if moment == "fsync" else (Path, "replace")), crash)
    with pytest.raises(ReportError, match="cannot be written: No space left on device"):
        write_report(report, path)
    assert path.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["baseline.json"]


BROKEN = [
    ("", "not valid JSON"),
    ("{", "Was it cut off"),
    ("[]", "not a report of collapse-audit"),
    ("{}", "not a report of collapse-audit"),
    ("[" * 100_000, "not valid JSON"),
    ('{"schema": "collapse-audit/report", "x": NaN}', "NaN is not a JSON number"),
    ('{"schema": "collapse-audit/error"}', "records an error"),
    ('{"schema": "collapse-audit/report"}', "schema version is None"),
    ('{"schema": "collapse-audit/report", "schema_version": 1.0}', "schema version is 1.0"),
    ('{"schema": "collapse-audit/report", "schema_version": "2.0"}', "knows 1.x only. Update"),
    ('{"schema": "collapse-audit/report", "schema_version": "1.7"}', "no heads"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_what_is_no_report_is_refused(text: str, message: str) -> None:
    with pytest.raises(ReportError, match=message):
        parse_report(text, "b.json")


def test_a_truncated_report_is_refused_wherever_it_was_cut(report: dict[str, Any]) -> None:
    text = json.dumps(report)
    for end in range(0, len(text), 97):
        with pytest.raises(ReportError, match="not valid JSON"):
            parse_report(text[:end], "b.json")


def test_a_damaged_head_is_named(report: dict[str, Any]) -> None:
    broken = edited(report, lambda r: r["heads"][0].pop("k"))
    with pytest.raises(ReportError, match=r"heads\[0\] has no k"):
        parse_report(json.dumps(broken), "b.json")


def test_a_later_minor_version_with_unknown_keys_is_read(report: dict[str, Any]) -> None:
    later = edited(report, lambda r: r.update(schema_version="1.9", novelty=1))
    assert parse_report(json.dumps(later), "b.json")["novelty"] == 1


def test_a_missing_or_binary_file_is_a_report_error(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"gone.json: No such file"):
        read_report(tmp_path / "gone.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReportError, match="not even text"):
        read_report(tmp_path / "binary.json")


# --- settings ------------------------------------------------------------------------------------


def test_settings_are_found_upwards_and_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.collapse-audit.check]\nfail-on = ["M:-5%"]\nbaseline = "heads/b.json"\n'
        'missing-baseline = "skip"\nepsilon = 0.05\nallow = ["k"]\n',
        encoding="utf-8",
    )
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "pyproject.toml").write_text("[project]\nname = 'x'\n", encoding="utf-8")
    settings = find_settings(inner)
    assert settings.fail_on == ("M:-5%",)
    assert settings.baseline == tmp_path / "heads" / "b.json"
    assert (settings.missing_baseline, settings.epsilon, settings.allow) == ("skip", 0.05, ("k",))


def test_a_file_of_our_own_wins_over_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.collapse-audit.check]\nepsilon = 0.05\n", encoding="utf-8"
    )
    (tmp_path / "collapse-audit.toml").write_text("[check]\nepsilon = 0.1\n", encoding="utf-8")
    assert find_settings(tmp_path).epsilon == 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[check]\nfail_on = []\n", "no setting 'fail_on'. Did you mean fail-on"),
        ("[check]\nfail-on = 'M:-5%'\n", "must be a list of strings"),
        ("[check]\nepsilon = '0.1'\n", "epsilon must be a float"),
        ("[check]\nmissing-baseline = 'ignore'\n", "'ignore' is none of fail, create, skip"),
        ("[check]\nallow = ['K']\n", "allow: 'K' is none of schema"),
        ("[check\n", "not valid TOML"),
        ("[other]\n", r"has no table \[check\]"),
    ],
)
def test_a_wrong_setting_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "collapse-audit.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ParameterError, match=message):
        read_settings(path)


# --- compare -------------------------------------------------------------------------------------

labelled = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12)


@given(labelled)
def test_regroupings_match_the_definition_in_plain_loops(prototypes: list[tuple[int, int]]) -> None:
    a, b = (by_size(list(labels)) for labels in zip(*prototypes, strict=True))
    k = len(a)
    found = compare_groups(np.array(a), np.array(b))
    pairs = [(a[i] == a[j], b[i] == b[j]) for i, j in combinations(range(k), 2)]
    assert found.pairs_kept == pairs.count((True, True))
    assert found.pairs_parted == pairs.count((True, False))
    assert found.pairs_joined == pairs.count((False, True))
    members_a = {frozenset(i for i in range(k) if a[i] == g) for g in a}
    members_b = {frozenset(i for i in range(k) if b[i] == g) for g in b}
    assert found.unchanged == len(members_a & members_b)
    assert found.split == sum(len({b[i] for i in group}) > 1 for group in members_a)
    assert found.merged == sum(len({a[i] for i in group}) > 1 for group in members_b)
    for group, parts in found.splits:
        assert sum(parts) == a.count(group)


def by_size(labels: list[int]) -> list[int]:
    """Group numbers by falling size, as an audit gives them."""
    order = sorted(set(labels), key=lambda label: (-labels.count(label), labels.index(label)))
    return [order.index(label) for label in labels]


def test_heads_side_by_side_have_deltas_and_judgements() -> None:
    a, b, c = head_of([3, 1, 1]), head_of([2, 2, 1]), head_of([1] * 5)
    found = compare(a, b, [c])
    rows = {row.metric.path: row for row in found.heads[0].rows}
    assert rows["unique.greedy"].values == (3, 3, 5)
    assert rows["unique.greedy"].deltas == (0, 2)
    assert rows["unique.greedy"].judgements == ("same", "better")
    assert rows["redundancy_factors.max"].judgements == ("better", "better")
    assert rows["d"].judgements == ("same", "changed")
    b_of_a, c_of_a = found.heads[0].regroupings
    assert b_of_a is not None
    assert c_of_a is not None
    assert c_of_a.splits == ((0, (1, 1, 1)),)
    assert (c_of_a.merged, c_of_a.pairs_parted, c_of_a.unchanged) == (0, 3, 2)
    assert b_of_a.merges == ((1, (1, 1)),)


def test_saved_reports_and_other_k_have_no_regroupings() -> None:
    a, b = head_of([3, 1, 1]), head_of([3, 1])
    assert compare(a, a.to_dict()).heads[0].regroupings == (None,)
    assert compare(a, b).heads[0].regroupings == (None,)


def test_more_heads_than_letters_can_be_put_side_by_side() -> None:
    table = comparison_to_table(compare(*[head_of([2, 1])] * 28).to_dict())
    assert "Z  memory" in table
    assert "#28  memory" in table
    assert "#28 - A" in table


def test_reports_of_another_epsilon_are_not_put_side_by_side(report: dict[str, Any]) -> None:
    other = edited(report, INCOMPARABLE["epsilon"])
    with pytest.raises(ReportError, match=r"epsilon is 0.025 here and 0.05"):
        compare(report, other)
    assert compare(report, other, allow=["epsilon"]).sources == ("memory", "memory")
