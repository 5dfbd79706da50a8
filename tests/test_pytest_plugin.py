"""The pytest plugin, run by pytest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from collapse_audit import ParameterError, Prototypes, audit
from collapse_audit.pytest_plugin import assert_no_collapse

pytest_plugins = ["pytester"]

# Loads the plugin exactly once, whether or not the installed package announces it.
PLUGIN = ("-p", "no:collapse-audit", "-p", "collapse_audit.pytest_plugin", "-p", "no:randomly")


def weight(copies: list[int]) -> np.ndarray:
    return np.repeat(np.eye(len(copies), dtype=np.float32), copies, axis=0)


@pytest.fixture
def inner(
    pytester: pytest.Pytester, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(repository))
    save_file({"head.last_layer.weight": weight([6, 1, 1])}, pytester.path / "bad.safetensors")
    save_file({"head.last_layer.weight": weight([1] * 8)}, pytester.path / "good.safetensors")
    return pytester


def test_the_fixture_passes_a_good_head_and_fails_a_collapsed_one(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        def test_good(collapse_audit):
            audit = collapse_audit.assert_no_collapse("good.safetensors")
            assert audit.num_unique == 8

        def test_bad(collapse_audit):
            collapse_audit.assert_no_collapse("bad.safetensors", min_unique_fraction=0.5)

        def test_lenient(collapse_audit):
            collapse_audit.assert_no_collapse("bad.safetensors", min_unique_fraction=0.3)
        """
    )
    result = inner.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "bad.safetensors: head has collapsed prototypes: 3 of 8 are unique (37.5 %) at "
            "epsilon 0.025; the most repeated ones occur 6, 1, 1 times.",
            "FAILED  head  unique_fraction<0.5  -         0.375  >= 0.5",
            "1 of 1 check failed",
        ]
    )
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_the_plugin_costs_a_session_nothing_until_it_is_used(inner: pytest.Pytester) -> None:
    inner.makepyfile(
        """
        import sys

        def test_nothing_heavy_is_imported():
            assert "collapse_audit.pytest_plugin" in sys.modules
            assert not {"numpy", "torch", "click"} & set(sys.modules)
        """
    )
    inner.runpytest_subprocess(*PLUGIN, "-p", "no:hypothesispytest").assert_outcomes(passed=1)


def test_every_kind_of_head_gives_the_same_audit(tmp_path: Path) -> None:
    import torch

    matrix = weight([3, 2, 1])
    save_file({"head.last_layer.weight": matrix}, tmp_path / "head.safetensors")
    prototypes = Prototypes.from_weight(matrix)
    heads = (matrix, torch.from_numpy(matrix), prototypes, audit(prototypes))
    for head in (*heads, tmp_path / "head.safetensors", str(tmp_path / "head.safetensors")):
        passed = assert_no_collapse(head, min_unique_fraction=0.5)
        assert passed.redundancy_factors.tolist() == [3, 2, 1]


def test_more_thresholds_and_a_baseline_can_be_given(tmp_path: Path) -> None:
    from collapse_audit.gate.files import write_report

    baseline = tmp_path / "baseline.json"
    write_report(audit(weight([2, 1, 1])).to_dict(), baseline)
    thresholds = {"fail_on": ["redundancy_factors.max:+0"], "baseline": baseline}
    assert_no_collapse(weight([2, 1, 1]), min_unique_fraction=0.7, **thresholds)
    with pytest.raises(pytest.fail.Exception, match=r"max:\+0  2         3      <= 2"):
        assert_no_collapse(weight([3, 1]), min_unique_fraction=0.5, **thresholds)


def test_a_baseline_is_compared_beside_the_smallest_fraction(tmp_path: Path) -> None:
    from collapse_audit.gate.files import write_report

    baseline = tmp_path / "baseline.json"
    write_report(audit(weight([2, 1, 1])).to_dict(), baseline)
    for fail_on in ([], ["M<1.5"]):
        assert_no_collapse(weight([2, 1, 1]), baseline=baseline, fail_on=fail_on,
                           min_unique_fraction=0.7)  # fmt: skip
        with pytest.raises(pytest.fail.Exception, match=r"unique.greedy:-0 +3 +2 +>= 3"):
            assert_no_collapse(weight([2, 2]), baseline=baseline, fail_on=fail_on,
                               min_unique_fraction=0.1)  # fmt: skip
    with pytest.raises(pytest.fail.Exception, match=r"unique_fraction<0.8 +- +0.75 +>= 0.8"):
        assert_no_collapse(weight([2, 1, 1]), baseline=baseline, min_unique_fraction=0.8)


def test_what_the_thresholds_need_is_measured() -> None:
    lone = assert_no_collapse(weight([1, 1]))
    assert not lone.redundancy.sweep
    swept = assert_no_collapse(weight([1, 1]), fail_on=["sweep[0.1].greedy<1"])
    assert swept.redundancy.sweep
    assert assert_no_collapse(weight([1, 1]), sweep=True).redundancy.sweep
    assert assert_no_collapse(weight([1, 1]), epsilon=0.1).redundancy.epsilon == 0.1


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ParameterError, match="min_unique_fraction must be from 0 to 1, got"):
        assert_no_collapse(weight([1, 1]), min_unique_fraction=fraction)


def test_options_for_an_audit_that_is_there_are_refused() -> None:
    with pytest.raises(ParameterError, match="already there takes no epsilon"):
        assert_no_collapse(audit(weight([1, 1])), epsilon=0.1)


@pytest.mark.parametrize("fraction", [0, 0.0, 1e-7])
def test_a_smallest_fraction_of_zero_is_a_limit_that_every_head_meets(fraction: float) -> None:
    assert assert_no_collapse(weight([30, 1]), min_unique_fraction=fraction).num_unique == 2


def test_a_smallest_fraction_of_zero_leaves_the_other_thresholds() -> None:
    found = assert_no_collapse(weight([3, 1]), min_unique_fraction=0, fail_on=["M<2"])
    assert found.num_unique == 2
    with pytest.raises(pytest.fail.Exception, match="M<3"):
        assert_no_collapse(weight([3, 1]), min_unique_fraction=0, fail_on=["M<3"])
