import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ive
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import mutual_info_score

from collapse_audit.errors import ParameterError
from collapse_audit.mlcd import MLCDAccumulator
from collapse_audit.mlcd.statistics import (
    agree_with_labels,
    compare_with_prior,
    measure_usage,
    prior_masses,
    rarefaction,
    split_mass,
)
from collapse_audit.prototypes import Prototypes


def head(k=12, d=6, *, seed=0, **kwargs):
    return Prototypes.from_weight(np.random.default_rng(seed).standard_normal((k, d)), **kwargs)


def samples(n=40, d=6, *, seed=1):
    return np.random.default_rng(seed).standard_normal((n, d))


def probabilities_by_definition(p, x, *, temperature, centre=None, normalize=True, norms=True):
    """Plain loops in float64, sharing no code with the package."""
    table = []
    for row in np.asarray(x, dtype=np.float64):
        feature = row / math.sqrt(sum(v * v for v in row)) if normalize else row
        logits = []
        for index, prototype in enumerate(np.asarray(p.rows, dtype=np.float64)):
            length = math.sqrt(sum(v * v for v in prototype))
            logit = sum(a * b for a, b in zip(feature, prototype, strict=True)) / length
            logit *= p.norms[index] if norms else 1.0
            logit += 0.0 if p.bias is None else p.bias[index]
            logit -= 0.0 if centre is None else centre[index]
            logits.append(logit / temperature)
        top = max(logits)
        powers = [math.exp(v - top) for v in logits]
        table.append([v / sum(powers) for v in powers])
    return np.array(table)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.1},
        {"temperature": 0.1, "normalize": False},
        {"temperature": 0.001},
        {"temperature": 0.5, "norms": False},
        {"temperature": 0.2, "centre": np.linspace(-1, 1, 12)},
    ],
)
@pytest.mark.parametrize("bias", [None, np.linspace(0, 2, 12)])
def test_agrees_with_the_definition_in_plain_loops(options, bias):
    p, x = head(bias=bias, scale=np.linspace(0.5, 1.5, 12)), samples()
    table = probabilities_by_definition(p, x, **options)
    mlcd = (
        MLCDAccumulator(
            p,
            temperature=options["temperature"],
            centre=options.get("centre"),
            normalize_features=options.get("normalize", True),
            use_norms=options.get("norms", True),
            dtype="float64",
            tile=50,
        )
        .update(x)
        .result()
    )
    np.testing.assert_allclose(mlcd.probabilities, table.mean(axis=0), rtol=1e-10, atol=1e-300)
    entropies = scipy_entropy(table, axis=1)
    np.testing.assert_allclose(mlcd.mean_entropy, entropies.mean(), rtol=1e-9)
    np.testing.assert_allclose(
        mlcd.mean_entropy_error, entropies.std(ddof=1) / math.sqrt(len(x)), rtol=1e-6
    )
    np.testing.assert_allclose(mlcd.mean_max_probability, table.max(axis=1).mean(), rtol=1e-10)
    np.testing.assert_array_equal(mlcd.counts, np.bincount(table.argmax(axis=1), minlength=12))
    np.testing.assert_allclose(
        mlcd.probability_variances, table.var(axis=0, ddof=1), rtol=1e-6, atol=1e-12
    )
    np.testing.assert_allclose(
        mlcd.mutual_information,
        scipy_entropy(table.mean(axis=0)) - entropies.mean(),
        rtol=1e-8,
        atol=1e-10,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-5)])
@pytest.mark.parametrize("suffix", ["", "_nocenter"])
def test_agrees_with_the_official_dino_code_on_a_trained_head(
    shared_checkpoints, dtype, tolerance, suffix
):
    reference = np.load(shared_checkpoints / "dino_vit_mlcd_ref.npz")
    with torch.serialization.safe_globals(_harmless_globals()):
        state = torch.load(shared_checkpoints / "dino_vit_mlcd.pth", weights_only=True)["teacher"]
    p = Prototypes.from_weight(
        state["head.last_layer.weight_v"], scale=state["head.last_layer.weight_g"]
    )
    mlcd = (
        MLCDAccumulator(
            p,
            temperature=float(reference["temperature"]),
            centre=None if suffix else reference["center"],
            dtype=dtype,
        )
        .update(reference["bottleneck_f64"])
        .result()
    )
    np.testing.assert_allclose(mlcd.probabilities, reference[f"mlcd{suffix}"], rtol=tolerance)
    for ours, theirs in (
        (mlcd.mean_entropy, "mean_entropy"),
        (mlcd.k.entropy, "marginal_entropy"),
        (mlcd.mutual_information, "mutual_information"),
    ):
        np.testing.assert_allclose(ours, reference[f"{theirs}{suffix}"], rtol=tolerance)
    if not suffix:
        np.testing.assert_array_equal(mlcd.winners, reference["argmax"])


def _harmless_globals():
    import argparse

    scalar = np._core.multiarray.scalar
    return [
        argparse.Namespace,
        np.dtype,
        type(np.dtype("float64")),
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
    ]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    tile=st.integers(1, 400),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=25)
def test_batching_order_and_tile_change_nothing(sizes, tile, seed):
    p, x = head(), samples(sum(sizes), seed=seed)
    whole = MLCDAccumulator(p, temperature=0.1, dtype="float64").update(x).result()
    pieces = MLCDAccumulator(p, temperature=0.1, dtype="float64", tile=tile)
    order = np.random.default_rng(seed).permutation(len(x))
    for rows in np.split(x[order], np.cumsum(sizes)[:-1]):
        pieces.update(torch.from_numpy(rows))
    mlcd = pieces.result()
    np.testing.assert_allclose(mlcd.probabilities, whole.probabilities, rtol=1e-12)
    np.testing.assert_allclose(mlcd.mean_entropy, whole.mean_entropy, rtol=1e-12)
    np.testing.assert_array_equal(mlcd.counts, whole.counts)


@pytest.mark.parametrize("options", [{}, {"centre": "estimate"}, {"assignment": "sinkhorn"}])
def test_two_halves_merge_into_the_whole(options):
    p, x, labels = head(), samples(), np.arange(40) % 3

    def accumulator():
        return MLCDAccumulator(p, temperature=0.1, dtype="float64", **options)

    whole = accumulator().update(x, labels=labels).result()
    left = accumulator().update(x[:13], labels=labels[:13])
    mlcd = left.merge(accumulator().update(x[13:], labels=labels[13:])).result()
    assert mlcd.n == 40
    np.testing.assert_allclose(mlcd.probabilities, whole.probabilities, rtol=1e-12)
    np.testing.assert_allclose(mlcd.mutual_information, whole.mutual_information, rtol=1e-10)
    assert mlcd.agreement() == whole.agreement()


def test_more_than_one_tile_of_columns_agrees_with_a_plain_softmax():
    p, x = head(5000, 16), samples(33, 16)
    u = torch.from_numpy(p.unit_rows() * p.norms[:, None])
    z = torch.nn.functional.normalize(torch.from_numpy(x), dim=1)
    table = torch.softmax(z @ u.T / 0.2, dim=1)
    for dtype, tolerance in (("float64", 1e-11), ("float32", 2e-5)):
        mlcd = MLCDAccumulator(p, temperature=0.2, dtype=dtype, tile=20_000).update(x).result()
        np.testing.assert_allclose(mlcd.probabilities, table.mean(0).numpy(), rtol=tolerance)
        np.testing.assert_array_equal(mlcd.winners, table.argmax(1).numpy())


def test_logits_give_the_same_as_the_features_behind_them():
    p, x = head(bias=np.linspace(-1, 1, 12)), samples()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    logits = unit @ (p.unit_rows() * p.norms[:, None]).T + p.bias
    for centre in (None, np.linspace(0, 1, 12), "estimate"):
        options = {"temperature": 0.1, "centre": centre, "dtype": "float64"}
        a = MLCDAccumulator(p, **options).update(x).result()
        b = MLCDAccumulator(p, **options).update_logits(logits).result()
        np.testing.assert_allclose(a.probabilities, b.probabilities, rtol=1e-11)
        assert a.centre == b.centre


def test_the_estimated_centre_is_the_mean_logit():
    p, x = head(), samples()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    centre = (unit @ (p.unit_rows() * p.norms[:, None]).T).mean(axis=0)
    given_ = MLCDAccumulator(p, temperature=0.1, centre=centre, dtype="float64")
    estimated = MLCDAccumulator(p, temperature=0.1, centre="estimate", dtype="float64")
    for start in range(0, 40, 7):
        estimated.update(x[start : start + 7])
    a, b = given_.update(x).result(), estimated.result()
    np.testing.assert_allclose(a.probabilities, b.probabilities, rtol=1e-11)
    assert (a.centre, b.centre) == ("file", "estimated")


def test_copies_leave_mutual_information_alone_and_inflate_perplexity():
    p, x = head(), samples()
    copies = np.arange(12) % 4 + 1
    many = Prototypes.from_weight(np.repeat(p.rows, copies, axis=0))
    groups = np.repeat(np.arange(12), copies)
    # a copied class has r_m times the mass, so the same head without copies carries log r_m
    weighted = Prototypes.from_weight(p.rows, bias=0.3 * np.log(copies))
    single = MLCDAccumulator(weighted, temperature=0.3, dtype="float64").update(x).result()
    double = (
        MLCDAccumulator(many, temperature=0.3, dtype="float64", groups=groups).update(x).result()
    )
    np.testing.assert_allclose(double.mutual_information, single.mutual_information, rtol=1e-10)
    np.testing.assert_allclose(double.unique_probabilities, single.probabilities, rtol=1e-10)
    assert double.k.perplexity > double.m.perplexity


def test_a_uniform_distribution_hides_the_redundancy_histogram():
    copies = np.array([1, 2, 3, 6])
    groups = np.repeat(np.arange(4), copies)
    # features orthogonal to every prototype: each class gets exactly 1/K
    rows = np.hstack([np.repeat(np.eye(4), copies, axis=0), np.zeros((12, 1))])
    mlcd = (
        MLCDAccumulator(
            Prototypes.from_weight(rows), temperature=0.1, groups=groups, dtype="float64"
        )
        .update(np.eye(5)[[4, 4, 4]])
        .result()
    )
    expected = math.log(4) - scipy_entropy(copies / 12)
    np.testing.assert_allclose(mlcd.m.kl_to_prior, expected, rtol=1e-12)
    np.testing.assert_allclose(mlcd.hidden_divergence, expected, rtol=1e-12)
    np.testing.assert_allclose([mlcd.kl_to_redundancy, mlcd.k.kl_to_prior], 0, atol=1e-12)


def test_merging_groups_never_adds_divergence_from_the_redundancy():
    p, x = head(), samples()
    groups = np.array([0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 5, 0])
    mlcd = MLCDAccumulator(p, temperature=0.1, groups=groups).update(x).result()
    assert mlcd.kl_to_redundancy <= mlcd.k.kl_to_prior


def test_sinkhorn_converges_to_the_plan_of_an_independent_package():
    with warnings.catch_warnings():  # POT's own docstrings and optional backends warn on import
        warnings.simplefilter("ignore")
        import ot
    p, x = head(k=7), samples(20)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = unit @ p.unit_rows().T
    plan = ot.sinkhorn(
        np.full(20, 1 / 20), np.full(7, 1 / 7), -cosines, 0.1, stopThr=1e-14, numItermax=10_000
    )
    table = plan * 20
    mlcd = (
        MLCDAccumulator(
            p,
            temperature=0.1,
            assignment="sinkhorn",
            sinkhorn_iterations=500,
            use_norms=False,
            dtype="float64",
            tile=21,
        )
        .update(x)
        .result()
    )
    np.testing.assert_allclose(mlcd.probabilities, 1 / 7, rtol=1e-9)
    np.testing.assert_allclose(mlcd.mean_entropy, scipy_entropy(table, axis=1).mean(), rtol=1e-9)
    np.testing.assert_array_equal(mlcd.winners, table.argmax(axis=1))


@pytest.mark.parametrize("iterations", [1, 3])
def test_few_sinkhorn_iterations_follow_the_loop_of_swav(iterations):
    p, x = head(), samples(16)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    q = np.exp(unit @ (p.unit_rows() * p.norms[:, None]).T / 0.3).T  # K x B as in SwAV
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(axis=1, keepdims=True)
        q /= 12
        q /= q.sum(axis=0, keepdims=True)
        q /= 16
    mlcd = (
        MLCDAccumulator(
            p,
            temperature=0.3,
            assignment="sinkhorn",
            sinkhorn_iterations=iterations,
            dtype="float64",
            tile=60,
        )
        .update(x)
        .result()
    )
    np.testing.assert_allclose(mlcd.probabilities, q.sum(axis=1), rtol=1e-10)


def test_sinkhorn_gives_every_group_of_copies_its_share():
    copies = np.array([1, 2, 3, 4])
    p = Prototypes.from_weight(np.repeat(head(4).rows, copies, axis=0))
    groups = np.repeat(np.arange(4), copies)
    accumulator = MLCDAccumulator(
        p,
        temperature=0.3,
        assignment="sinkhorn",
        sinkhorn_iterations=200,
        groups=groups,
        dtype="float64",
    )
    mlcd = accumulator.update(samples(50)).result()
    np.testing.assert_allclose(mlcd.unique_probabilities, copies / 10, rtol=1e-9)


@given(
    groups=st.lists(st.integers(0, 4), min_size=12, max_size=12),
    tile=st.integers(1, 200),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=25)
def test_the_unique_class_of_a_sample_is_the_group_of_the_largest_mass(groups, tile, seed):
    p, x = head(), samples(seed=seed)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    groups = [numbers[group] for group in groups]
    won, highest, copies = [], [], []
    table = probabilities_by_definition(p, x, temperature=0.4)
    for row in table:
        masses = [0.0] * len(numbers)
        for probability, group in zip(row, groups, strict=True):
            masses[group] += probability
        won.append(masses.index(max(masses)))
        highest.append(max(masses))
        copies.append(max((k for k in range(12) if groups[k] == won[-1]), key=row.__getitem__))
    labels = np.arange(40) % 3
    accumulator = MLCDAccumulator(p, temperature=0.4, groups=groups, dtype="float64", tile=tile)
    mlcd = accumulator.update(x, labels=labels).result()
    assert mlcd.unique_winners.tolist() == won
    assert mlcd.copy_winners.tolist() == copies
    np.testing.assert_allclose(mlcd.unique_winner_probabilities, highest, rtol=1e-6)
    np.testing.assert_allclose(mlcd.winner_probabilities, table.max(axis=1), rtol=1e-6)
    rows = mlcd.assignments()
    assert rows["sample"].tolist() == list(range(40))
    assert rows["prototype"].tolist() == table.argmax(axis=1).tolist()
    assert (rows["group"].tolist(), rows["label"].tolist()) == (won, labels.tolist())
    counts = [won.count(group) for group in range(len(numbers))]
    assert mlcd.usage("m") == measure_usage(np.array(counts))
    top = mlcd.top_classes(12)
    assert top["count"].tolist() == [counts[group] for group in top["group"]]
    assert mlcd.agreement("m") == agree_with_labels(np.array(won), labels)


def test_many_small_copies_outweigh_the_most_likely_prototype():
    p = Prototypes.from_weight(np.array([[1.0, 0.0]] + [[0.9, math.sqrt(0.19)]] * 9))
    mlcd = MLCDAccumulator(p, temperature=1.0, groups=[1] + [0] * 9).update([[1.0, 0.0]]).result()
    assert (mlcd.winners.tolist(), mlcd.unique_winners.tolist()) == ([0], [0])
    assert mlcd.top_classes(1)["count"].tolist() == [1]


def test_groups_are_summed_over_all_tiles_of_columns():
    p, x = head(5000, 16), samples(33, 16)
    groups = np.random.default_rng(3).permutation(5000) % 700
    table = torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True) @ p.unit_rows().T)
    table = torch.softmax(table / 0.2, dim=1).numpy()
    masses = np.stack([table[:, groups == group].sum(axis=1) for group in range(700)], axis=1)
    for dtype, tile in (("float64", 30_000), ("float32", 30_000), ("float64", 1 << 24)):
        accumulator = MLCDAccumulator(
            p, temperature=0.2, groups=groups, dtype=dtype, use_norms=False, tile=tile
        )
        halves = accumulator.update(x[:20]).update(x[20:]).result()
        np.testing.assert_array_equal(halves.unique_winners, masses.argmax(axis=1))
        won = groups == masses.argmax(axis=1)[:, None]
        np.testing.assert_array_equal(halves.copy_winners, np.where(won, table, 0).argmax(axis=1))


def test_the_vmf_normaliser_is_a_bias_of_every_prototype():
    norms = np.linspace(0.5, 3.0, 12)
    p = Prototypes.from_weight(head(12, 20).rows, scale=norms)
    x, centre = samples(d=20), np.linspace(0, 1, 12)
    kappa, order = norms / 0.1, 20 / 2 - 1
    log_c = order * np.log(kappa) - np.log(ive(order, kappa)) - kappa - 10 * math.log(2 * math.pi)
    by_hand = Prototypes.from_weight(p.rows, scale=norms, bias=0.1 * log_c)
    options = {"temperature": 0.1, "centre": centre, "dtype": "float64"}
    expected = MLCDAccumulator(by_hand, **options).update(x).result()
    found = MLCDAccumulator(p, vmf=True, **options).update(x).result()
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    plain = MLCDAccumulator(p, **options).update(x).result()
    assert np.abs(plain.probabilities - expected.probabilities).max() > 0.01
    merged = MLCDAccumulator(p, vmf=True, **options).update(x[:9])
    with pytest.raises(ParameterError, match="same prototypes and settings"):
        merged.merge(MLCDAccumulator(p, **options).update(x[9:]))


def test_usage_of_copies_is_judged_after_merging():
    rows = np.repeat(np.eye(3), [4, 1, 1], axis=0)
    mlcd = (
        MLCDAccumulator(Prototypes.from_weight(rows), temperature=0.1, groups=[0, 0, 0, 0, 1, 2])
        .update(np.eye(3)[[0, 0, 1]])
        .result()
    )
    assert (mlcd.usage("k").dead, mlcd.usage("m").dead) == (4, 1)
    top = mlcd.top_classes(1)
    assert top.to_dict("records")[0]["redundancy_factor"] == 4
    assert mlcd.to_frame()["redundancy_factor"].tolist() == [4, 4, 4, 4, 1, 1]


def test_the_bias_correction_of_one_hot_assignments_is_that_of_miller_and_madow():
    p = Prototypes.from_weight(np.eye(4))
    x = np.eye(4)[[0] * 10 + [1] * 20 + [2] * 5 + [3] * 5]
    mlcd = MLCDAccumulator(p, temperature=1e-3, dtype="float64").update(x).result()
    bias = mlcd.mutual_information_corrected - mlcd.mutual_information
    # unbiased variances: (K - 1) / 2N times N / (N - 1)
    np.testing.assert_allclose(bias, 3 / (2 * 40) * 40 / 39, rtol=1e-9)


def test_the_bias_correction_removes_most_of_the_bias_of_small_samples():
    p, x = head(64, 8), samples(4000, 8)
    truth = MLCDAccumulator(p, temperature=0.3).update(x).result().mutual_information
    parts = [MLCDAccumulator(p, temperature=0.3).update(part).result() for part in np.split(x, 20)]
    plain = abs(np.mean([m.mutual_information for m in parts]) - truth)
    corrected = abs(np.mean([m.mutual_information_corrected for m in parts]) - truth)
    assert corrected < plain / 5


def test_the_dictionary_holds_the_contract_of_a_report_and_plain_numbers():
    import json

    mlcd = MLCDAccumulator(head(branch="teacher"), temperature=0.1, groups=np.arange(12))
    found = mlcd.update(samples()).result().to_dict()
    assert list(found)[:9] == [
        "n", "branch", "temperature", "centre", "mean_entropy", "mutual_information",
        "k", "m", "usage",
    ]  # fmt: skip
    assert set(found["k"]) == {"entropy", "perplexity", "kl_to_prior", "kl_from_prior", "js", "tv"}
    np.testing.assert_allclose(list(found["k"].values()), list(found["m"].values()), rtol=1e-12)
    json.dumps(found, allow_nan=False)


distributions = st.lists(st.integers(0, 5), min_size=2, max_size=8).filter(any)


@given(distributions, st.sampled_from(["uniform", "power-law"]))
def test_divergences_agree_with_scipy(masses, prior):
    from scipy.spatial.distance import jensenshannon

    p = np.array(masses) / sum(masses)
    found = compare_with_prior(p, prior)
    ranked, target = np.sort(p)[::-1], prior_masses(prior, len(p))
    expected = {
        "entropy": scipy_entropy(ranked),
        "kl_to_prior": scipy_entropy(ranked, target),
        "kl_from_prior": scipy_entropy(target, ranked),
        "js": jensenshannon(ranked, target) ** 2,
        "tv": np.abs(ranked - target).sum() / 2,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(found, name), value, atol=1e-12)
    if 0 in masses:
        assert found.to_dict()["kl_from_prior"] is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=30))
def test_label_information_agrees_with_scikit_learn(pairs):
    labels, winners = np.array(pairs).T
    found = agree_with_labels(winners, labels)
    np.testing.assert_allclose(
        found.mutual_information, mutual_info_score(labels, winners), atol=1e-12
    )


def test_labels_that_share_their_main_class_are_merged():
    winners = np.array([3, 3, 3, 9, 9, 9, 9, 1])
    labels = np.array([0, 0, 1, 2, 2, 2, 1, 1])
    # label 1 is split evenly between classes 1, 3, 9: no majority, the last in order counts
    found = agree_with_labels(winners[[0, 1, 2, 3, 4, 5]], labels[[0, 1, 2, 3, 4, 5]])
    assert (found.labels, found.merged) == (3, 2)


def test_labels_are_compared_at_both_levels():
    p = Prototypes.from_weight(np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.0]]))
    x = np.array([[1.0, 0.5], [1.0, -0.5], [-1.0, 0.0]])
    mlcd = MLCDAccumulator(p, temperature=0.1, groups=[0, 0, 1]).update(x, labels=[7, 8, 9])
    result = mlcd.result()
    np.testing.assert_allclose(result.agreement("k").mutual_information, math.log(3))
    assert (result.agreement("k").merged, result.agreement("m").merged) == (0, 2)
    assert result.to_dict()["labels"]["m"]["merged"] == 2


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6).filter(any), st.data())
@settings(deadline=None)
def test_rarefaction_agrees_with_binomial_coefficients(counts, data):
    total = sum(counts)
    size = data.draw(st.integers(0, total))
    expected = sum(1 - math.comb(total - c, size) / math.comb(total, size) for c in counts)
    np.testing.assert_allclose(rarefaction(np.array(counts), size), [expected], atol=1e-10)


def test_the_usage_null_is_the_one_of_the_literature():
    usage = measure_usage(np.bincount(np.zeros(8192, dtype=np.int64), minlength=8192))
    assert round(usage.expected_used) == 5179


@pytest.mark.parametrize("classes", [3, 10, 1000])
def test_a_uniform_distribution_splits_into_a_tenth_four_tenths_and_a_half(classes):
    found = split_mass(np.full(classes, 1 / classes))
    np.testing.assert_allclose(found, (0.1, 0.4, 0.5), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a positive number"),
        ({"temperature": math.nan}, "temperature must be a positive number"),
        ({"prior": "zipf"}, "prior must be"),
        ({"assignment": "hard"}, "assignment must be"),
        ({"dtype": "float16"}, "dtype must be"),
        ({"tile": 0}, "at least 1"),
        ({"centre": "file"}, "centre must be 'estimate'"),
        ({"centre": np.zeros(3)}, "12 finite numbers"),
        ({"centre": np.full(12, np.nan)}, "12 finite numbers"),
        ({"groups": np.zeros(3, dtype=int)}, "groups must be 12 integers"),
        ({"groups": np.full(12, 2)}, "without gaps"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        MLCDAccumulator(head(), **({"temperature": 0.1} | options))


def test_bad_samples_are_refused():
    accumulator = MLCDAccumulator(head(), temperature=0.1)
    with pytest.raises(ParameterError, match="no samples"):
        accumulator.result()
    with pytest.raises(ParameterError, match="features must be n x 6 for this head"):
        accumulator.update(np.zeros((2, 12)))
    with pytest.raises(ParameterError, match="logits must be n x 12"):
        accumulator.update_logits(np.zeros((2, 6)))
    with pytest.raises(ParameterError, match="first in row 1"):
        accumulator.update_logits(np.array([[0.0] * 12, [np.nan] * 12]))
    with pytest.raises(ParameterError, match="labels must be 40 integers"):
        accumulator.update(samples(), labels=np.zeros(39, dtype=int))
    accumulator.update(samples())
    with pytest.raises(ParameterError, match="give all or none"):
        accumulator.update(samples(), labels=np.zeros(40, dtype=int))
    with pytest.raises(ParameterError, match="same prototypes and settings"):
        accumulator.merge(MLCDAccumulator(head(seed=5), temperature=0.1))
    doubled = Prototypes.from_weight(head().rows, scale=np.full(12, 2.0))
    halves = [
        MLCDAccumulator(Prototypes.from_weight(head().rows, scale=np.ones(12)), temperature=0.1),
        MLCDAccumulator(doubled, temperature=0.2),
    ]  # the same scale, another centre and report
    with pytest.raises(ParameterError, match="same prototypes and settings"):
        halves[0].merge(halves[1].update(samples()))
    with pytest.raises(ParameterError, match="vmf needs d of at least 3, got 2"):
        MLCDAccumulator(np.eye(2), temperature=0.1, vmf=True)
    with pytest.raises(ParameterError, match="no m level"):
        accumulator.result().usage("m")


def test_a_batch_without_samples_says_nothing_about_labels():
    accumulator = MLCDAccumulator(head(), temperature=0.1)
    accumulator.update(np.zeros((0, 6)), labels=np.zeros(0, dtype=int)).update(samples())
    found = accumulator.result()
    assert (found.n, found.labels) == (40, None)


@pytest.mark.parametrize("scale", [1e-2, 1e200])
def test_logits_that_overflow_are_refused(scale):
    p = Prototypes.from_weight(head().rows, scale=np.geomspace(scale, 1e200, 12))
    with pytest.raises(ParameterError, match="leave the range of their type"):
        MLCDAccumulator(p, temperature=0.1).update(samples()).result()


@pytest.mark.gpu
def test_the_gpu_gives_the_same():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    p, x = head(5000, 16), samples(300, 16)
    cpu = MLCDAccumulator(p, temperature=0.1, dtype="float64").update(x).result()
    gpu = MLCDAccumulator(p, temperature=0.1, dtype="float64", device="cuda").update(x).result()
    np.testing.assert_allclose(gpu.probabilities, cpu.probabilities, rtol=1e-11)
    np.testing.assert_allclose(gpu.mean_entropy, cpu.mean_entropy, rtol=1e-11)
    np.testing.assert_array_equal(gpu.counts, cpu.counts)
