"""The audit: what a report says about one head."""

from __future__ import annotations

import json

import numpy as np
import pytest

from collapse_audit import (
    CollapseAudit,
    ParameterError,
    Prototypes,
    Published,
    Source,
    audit_prototypes,
)
from collapse_audit.head_audit import build_report


@pytest.fixture(scope="module")
def planted(kinds):
    """Five directions repeated 1 to 5 times, with norms and an order that say nothing."""
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.repeat(np.arange(5), [1, 2, 3, 4, 5]))
    rows = kinds.noisy(rng, kinds.random_unit(rng, 5, 64)[labels], 0.01)
    rows *= rng.uniform(0.5, 2, (15, 1))
    prototypes = Prototypes.from_weight(
        rows.astype(np.float32), name="head", branch="teacher", tensor_keys=("t/w",), source="x.pth"
    )
    return prototypes, labels


@pytest.fixture(scope="module")
def audit(planted):
    return audit_prototypes(planted[0])


def test_an_audit_finds_the_planted_groups(audit, planted):
    _, labels = planted
    assert isinstance(audit, CollapseAudit)
    assert audit.num_unique == 5
    assert audit.unique_fraction == 1 / 3
    assert audit.redundancy_factors.tolist() == [5, 4, 3, 2, 1]
    assert audit.redundancy_factors.dtype == audit.groups.dtype == np.int64
    assert audit.groups.tolist() == (4 - labels).tolist()


def test_the_report_of_a_head_holds_what_was_measured(audit, planted):
    prototypes, _ = planted
    report = audit.head_report()
    assert (report["name"], report["branch"], report["tensor_keys"]) == ("head", "teacher", ["t/w"])
    assert (report["k"], report["d"], report["dtype"]) == (15, 64, "float32")
    unique = report["unique"]
    assert (unique["greedy"], unique["components"], unique["isolated"]) == (5, 5, 1)
    assert report["unique_fraction"] == 1 / 3
    factors = report["redundancy_factors"]
    assert (factors["max"], factors["mean"], factors["top"]) == (5, 3.0, [5, 4, 3, 2, 1])
    assert factors["histogram"] == [[1, 1], [2, 1], [3, 1], [4, 1], [5, 1]]
    assert factors["gini"] == pytest.approx(4 / 15)
    share = np.arange(1, 6) / 15
    assert factors["effective_number"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    epsilons = [level["epsilon"] for level in report["sweep"]]
    assert epsilons == [0.005, 0.0125, 0.025, 0.05, 0.1, 0.25, 0.5]
    assert {(s["greedy"], s["components"], s["isolated"]) for s in report["sweep"]} == {(5, 5, 1)}
    assert report["exact_duplicates"] == 0
    assert (report["published"], report["mlcd"]) == (None, None)
    norms = np.linalg.norm(prototypes.rows.astype(float), axis=1)
    assert report["norms"]["min"] == pytest.approx(norms.min())
    assert report["norms"]["median"] == pytest.approx(np.median(norms))
    assert report["norms"]["max"] == pytest.approx(norms.max())
    spread = max(norms[audit.groups == g].max() / norms[audit.groups == g].min() for g in range(5))
    assert report["norms"]["max_spread_in_group"] == pytest.approx(spread)
    mean = (prototypes.rows / norms[:, None]).mean(axis=0)
    assert report["mean_direction_norm"] == pytest.approx(np.linalg.norm(mean))


def test_nearest_cosines_are_summarised_by_their_quantiles(audit, planted):
    unit = planted[0].unit_rows()
    cosine = unit @ unit.T - 3 * np.eye(15)
    quantiles = np.quantile(cosine.max(axis=1), [0, 0.01, 0.05, 0.5, 0.95, 0.99, 1])
    found = audit.head_report()["nearest_cosine"]
    names = ["min", "q01", "q05", "median", "q95", "q99", "max"]
    assert list(found)[:7] == names
    np.testing.assert_allclose([found[name] for name in names], quantiles, rtol=1e-12)


@pytest.mark.parametrize("rows", [np.eye(3), -np.ones((2, 4)), np.array([[1.0, 0], [-1, 1e-3]])])
def test_the_numbers_of_saebench_equal_its_definition(rows):
    rng = np.random.default_rng(0)
    for weight in (rows, 3 * rng.standard_normal((40, 6)), np.vstack([rows, 2 * rows])):
        unit = weight / np.linalg.norm(weight, axis=1, keepdims=True)
        rows_ = range(len(unit))
        largest = [max(unit[i] @ unit[j] for j in rows_ if j != i) for i in rows_]  # with its sign
        report = audit_prototypes(weight).head_report()["nearest_cosine"]
        assert report["average_max_decoder_cosine_sim"] == pytest.approx(np.mean(largest))
        assert report["max_decoder_cosine_sim"] == pytest.approx(max(largest))


def test_the_null_is_that_of_as_many_random_directions(audit):
    null = audit.head_report()["null"]
    assert null["expected_pairs"] == pytest.approx(null["probability"] * 15 * 14 / 2)
    assert 0 < null["probability"] < 1e-30
    assert list(null["nearest_cosine"]) == ["q01", "q05", "median", "q95", "q99"]


def test_opposite_halves_have_no_mean_direction_and_are_still_collapsed():
    mu = np.random.default_rng(0).standard_normal(32)
    audit = audit_prototypes(Prototypes.from_weight(np.outer([1, -1] * 40, mu)))
    report = audit.head_report()
    assert report["mean_direction_norm"] == pytest.approx(0, abs=1e-12)
    assert report["unique"]["greedy"] == 2
    assert report["exact_duplicates"] == 78
    assert report["nearest_cosine"]["min"] == 1.0


def test_a_report_keeps_the_twenty_largest_factors():
    rows = np.eye(30)[np.repeat(np.arange(30), np.arange(1, 31))]
    report = audit_prototypes(Prototypes.from_weight(rows), nearest=False).head_report()
    assert report["redundancy_factors"]["top"] == list(range(30, 10, -1))
    assert len(report["redundancy_factors"]["histogram"]) == 30


def test_json_is_the_report_in_plain_values(audit):
    report = json.loads(audit.to_json())
    assert report == audit.to_dict() == build_report([audit])
    assert (report["schema"], report["schema_version"]) == ("collapse-audit/report", "1.1")
    counted = {"epsilon": 0.025, "rule": "greedy", "certified": True}
    assert report["parameters"] == {**counted, "metric": "cosine", "radius": None}
    expected = {"spec": "x.pth", "id": None, "family": None, "sha256": None}
    assert report["source"] == expected
    assert report["heads"] == [audit.head_report()]


def test_several_heads_of_a_source_stand_in_one_report(audit, planted):
    other = audit_prototypes(planted[0])
    assert len(build_report([audit, other])["heads"]) == 2


def test_the_source_and_the_published_counts_are_reported(planted):
    counts = (Published(984, "BMVC 2024"), Published(908, "ICLR 2026"))
    source = Source("dino_rn50", id="dino_rn50", family="dino", sha256="ab", published=counts)
    report = audit_prototypes(planted[0], source=source).to_dict()
    assert report["source"]["id"] == "dino_rn50"
    assert report["heads"][0]["published"] == {
        "unique": 984,
        "source": "BMVC 2024",
        "others": [{"unique": 908, "source": "ICLR 2026"}],
    }


def test_what_was_not_asked_for_is_not_in_the_report(planted):
    report = audit_prototypes(planted[0], sweep=False, nearest=False).head_report()
    assert report["sweep"] == []
    assert report["nearest_cosine"] is None
    assert report["exact_duplicates"] is None


def test_the_frame_has_one_row_per_unique_prototype(audit):
    frame = audit.to_frame()
    assert frame.index.name == "unique_prototype"
    assert frame["redundancy_factor"].tolist() == [5, 4, 3, 2, 1]
    assert frame["leader"].tolist() == audit.redundancy.leaders.tolist()
    assert frame["clique"].all()


def test_the_same_weights_give_the_same_report_whatever_their_scale(planted):
    prototypes, _ = planted
    one = audit_prototypes(prototypes).head_report()
    other = audit_prototypes(Prototypes.from_weight(prototypes.rows * 2.0**10)).head_report()
    for key in ("unique", "redundancy_factors", "sweep", "nearest_cosine", "mean_direction_norm"):
        assert one[key] == other[key]


def test_weight_norm_scales_change_norms_and_nothing_else(planted):
    rows = planted[0].rows
    scale = np.linspace(1, 4, 15)
    plain = audit_prototypes(Prototypes.from_weight(rows)).head_report()
    scaled = audit_prototypes(Prototypes.from_weight(rows, scale=scale)).head_report()
    assert (scaled["norms"]["min"], scaled["norms"]["max"]) == (1.0, 4.0)
    assert {key for key in plain if plain[key] != scaled[key]} == {"norms"}


def test_a_threshold_out_of_range_is_refused(planted):
    with pytest.raises(ParameterError, match=r"between 0 and 1 \(a cosine distance\), got 1\.5"):
        audit_prototypes(planted[0], epsilon=1.5)


def test_progress_names_every_stage(planted):
    stages = []
    audit_prototypes(planted[0], progress=lambda stage, *_: stages.append(stage))
    assert {"cover at 0.5", "links at 0.5"} <= set(stages)
