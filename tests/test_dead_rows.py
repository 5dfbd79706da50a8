"""Dead rows: planted gaps are found as planted, norms of heads that train have none."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit import Prototypes, audit, audit_prototypes
from collapse_audit.norm_gap import find_norm_gap
from collapse_audit.report.schema import report_schema
from collapse_audit.sources import load_heads
from tests.plain_definition import Definition


def planted(k, dead, d=64, ratio=1e-2, seed=0):
    """Rows of independent entries, some of them far smaller, and which."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((k, d))
    which = np.sort(rng.choice(k, dead, replace=False))
    weight[which] *= ratio
    return weight, which


@pytest.mark.parametrize(
    ("k", "dead", "ratio"),
    [(512, 230, 0.03), (320, 103, 1e-3), (512, 1, 1e-2), (512, 500, 1e-2), (8192, 8000, 1e-4)],
)
def test_planted_rows_are_found(k, dead, ratio):
    weight, which = planted(k, dead, ratio=ratio)
    norms = np.linalg.norm(weight, axis=1)
    gap = find_norm_gap(norms, 64)
    assert gap.dead.tolist() == which.tolist()
    assert sorted([*gap.dead, *gap.live]) == list(range(k))
    assert (gap.largest_dead, gap.smallest_live) == (norms[which].max(), norms[gap.live].min())


def test_the_norms_of_the_two_codebooks_that_taught_the_rule():
    rng = np.random.default_rng(0)
    vq_vae = np.concatenate([rng.uniform(0.01, 0.029, 230), rng.uniform(0.85, 12.0, 282)])
    assert len(find_norm_gap(rng.permutation(vq_vae), 64).dead) == 230
    quantizer = np.concatenate([rng.uniform(1e-6, 1e-3, 103), rng.uniform(0.3, 4.0, 217)])
    assert len(find_norm_gap(rng.permutation(quantizer), 128).dead) == 103


def test_the_real_norms_of_a_codebook_have_their_gap():
    # vqvae.pt of NimbleBoxAI/explore-weights at 3fed585 (MIT): 512 codes of 128 dimensions
    norms = np.load(Path(__file__).parent / "data" / "vqvae_norms.npy").astype(np.float64)
    gap = find_norm_gap(norms, 128)
    assert (len(gap.dead), len(gap.live)) == (230, 282)
    assert (round(gap.largest_dead, 4), round(gap.smallest_live, 3)) == (0.0292, 0.855)


NORMS = {
    "gaussian": lambda rng, k, d: np.linalg.norm(rng.standard_normal((k, d)), axis=1),
    "lognormal": lambda rng, k, _: rng.lognormal(0.0, 0.7, k),
    "unit": lambda _, k, __: np.ones(k),
    "uniform": lambda rng, k, _: rng.uniform(0.2, 1.9, k),
    "outliers": lambda rng, k, _: np.append(rng.uniform(0.5, 1.0, k - 2), [30.0, 900.0]),
}


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize(("k", "d"), [(512, 64), (4096, 256), (512, 2), (300, 1), (16384, 8)])
def test_norms_without_a_gap_raise_no_alarm(kind, k, d):
    for seed in range(20):
        assert find_norm_gap(NORMS[kind](np.random.default_rng(seed), k, d), d) is None


@pytest.mark.parametrize("name", ["digits_baseline", "digits_koleo_proto"])
def test_heads_that_were_trained_have_no_dead_rows(repository, name):
    (head,) = load_heads(repository / "collapse_audit" / "examples" / f"{name}.safetensors")
    assert set(head.norms) == {1.0}, "a weight-normed layer with all scales at one"
    for norms in (head.norms, head.lengths):
        assert find_norm_gap(norms, head.d) is None


@pytest.mark.parametrize("file", ["dino_bf16.pth", "msn_published.pth.tar", "esvit_swin_vr.pth"])
def test_neither_have_checkpoints_in_the_original_formats(shared_checkpoints, file):
    for head in load_heads(shared_checkpoints / file):
        assert find_norm_gap(head.norms, head.d) is None


def test_what_lies_above_must_be_more_than_an_outlier():
    norms = np.ones(512)
    norms[:5] = 50.0
    assert find_norm_gap(norms, 64) is None
    norms[5] = 50.0  # six rows are 1.2 %
    assert len(find_norm_gap(norms, 64).dead) == 506


def test_rows_of_zero_are_dead_whatever_their_number():
    gap = find_norm_gap(np.array([0.0, 3.0, 4.0, 0.0]), 1)
    assert (gap.dead.tolist(), gap.largest_dead, gap.smallest_live) == ([0, 3], 0.0, 3.0)
    assert find_norm_gap(np.zeros(9), 8) is None


@given(
    st.lists(st.floats(0.01, 100.0), min_size=2, max_size=40),
    st.integers(1, 64),
    st.randoms(use_true_random=False),
    st.integers(-60, 60),
)
def test_neither_order_nor_a_power_of_two_matters(norms, d, random, power):
    gap = find_norm_gap(np.array(norms), d)
    order = np.array(random.sample(range(len(norms)), len(norms)))
    other = find_norm_gap(np.array(norms)[order] * 2.0**power, d)
    assert (gap is None) == (other is None)
    if gap is not None:
        assert set(order[other.dead]) == set(gap.dead)
        assert other.largest_dead == gap.largest_dead * 2.0**power
        assert 10 * gap.largest_dead <= gap.smallest_live * (1 + 1e-15)
        assert len(gap.live) >= 2


@pytest.fixture(scope="module")
def collapsed() -> tuple[np.ndarray, np.ndarray]:
    """Dead rows beside live ones, most of which are copies of others."""
    weight, which = planted(120, 50, d=24)
    rng = np.random.default_rng(4)
    live = np.setdiff1d(np.arange(120), which)
    weight[live] = weight[live[rng.integers(0, 30, len(live))]]
    return weight + 1e-6 * rng.standard_normal(weight.shape), which


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_m_of_the_live_rows_stands_beside_m(collapsed, metric):
    weight, which = collapsed
    found = audit_prototypes(weight, metric=metric)
    live = np.delete(weight, which, axis=0)
    if metric == "cosine":
        expected = len(Definition(live, 0.025).greedy()[0])
        assert found.num_unique == expected + 50
    else:
        expected = audit_prototypes(live, metric=metric, radius=found.redundancy.radius).num_unique
        assert found.num_unique == expected + 1  # the dead ones are one point
    assert found.dead.rows.tolist() == which.tolist()
    assert (found.dead.live.k, found.dead.live.num_unique) == (70, expected)
    report = found.to_dict()
    jsonschema.validate(report, report_schema())
    head = report["heads"][0]
    norms = np.linalg.norm(weight, axis=1)
    assert head["dead"] == {
        "count": 50,
        "largest_norm": pytest.approx(norms[which].max()),
        "smallest_live_norm": pytest.approx(np.delete(norms, which).min()),
        "live": {"k": 70, "unique": expected, "unique_fraction": expected / 70},
    }
    assert head["notes"][-1].startswith("50 of 120 rows are dead: their norms are at most ")
    assert head["notes"][-1].endswith(f"of the 70 live rows alone {expected} are unique")
    for text in (str(found), found.to_markdown(), found.to_html()):
        assert f"M of the 70 live rows alone: {expected} (" in " ".join(text.split())


def test_a_head_without_dead_rows_says_so_in_its_report(tmp_path: Path):
    np.save(tmp_path / "head.npy", np.random.default_rng(0).standard_normal((40, 16)))
    found = audit(tmp_path / "head.npy")
    assert found.dead is None
    head = found.to_dict()["heads"][0]
    assert head["dead"] is None
    assert head["notes"] == []


def test_a_weight_normed_layer_is_judged_by_its_scales():
    weight, which = planted(200, 40)
    assert audit_prototypes(Prototypes.from_weight(weight, scale=np.ones(200))).dead is None
    scale = np.ones(200)
    scale[which] = 1e-3
    found = audit_prototypes(Prototypes.from_weight(planted(200, 0)[0], scale=scale))
    assert found.dead.rows.tolist() == which.tolist()
