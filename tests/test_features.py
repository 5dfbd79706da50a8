"""RankMe, participation ratio and uniformity, against SVD, scikit-learn and plain loops."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from collapse_audit.errors import ParameterError
from collapse_audit.examples import embedded_head
from collapse_audit.mlcd import FeatureAccumulator, FeatureSpread

Rows = npt.NDArray[np.floating]


def spread_of(x: Rows, *, batch: int = 64, **options: bool | int) -> FeatureSpread:
    accumulator = FeatureAccumulator(**options)  # type: ignore[arg-type]
    for start in range(0, len(x), batch):
        accumulator.update(x[start : start + batch])
    return accumulator.result()


def rankme_by_svd(x: Rows, *, centred: bool = False, power: int = 1, constant: float = 1e-7):
    """The definition, on a float64 SVD of the n x d matrix."""
    rows = x.astype(np.float64)
    values = np.linalg.svd(rows - centred * rows.mean(axis=0), compute_uv=False) ** power
    p = values / values.sum() + constant
    return math.exp(-sum(share * math.log(share) for share in p if share > 0))


def uniformity_by_loops(x: Rows) -> float:
    unit = [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in x.tolist()]
    powers = [
        math.exp(-2 * sum((a - b) ** 2 for a, b in zip(unit[i], unit[j], strict=True)))
        for i in range(len(unit))
        for j in range(i)
    ]
    return math.log(sum(powers) / len(powers))


def noise(n: int = 60, d: int = 8, *, seed: int = 0) -> Rows:
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.fixture(scope="module")
def shipped() -> Rows:
    """The backbone features of the held-out digits that ship with the head (450 x 256)."""
    path = embedded_head().with_name("digits_baseline.features.npz")
    return np.asarray(np.load(path)["features"], dtype=np.float64)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"constant": 1e-5},
        {"centred": True},
        {"centred": True, "power": 2},
        {"power": 2, "constant": 0.0},
    ],
)
@pytest.mark.parametrize("n", [64, 450])
def test_trained_features_have_the_rankme_of_a_float64_svd(shipped, options, n) -> None:
    found = spread_of(shipped[:n]).rankme(**options)
    assert found == pytest.approx(rankme_by_svd(shipped[:n], **options), rel=1e-7)
    if n == 450:
        assert found == pytest.approx(rankme_by_svd(shipped, **options), rel=1e-10)


def test_the_published_variants_differ_on_the_same_features(shipped) -> None:
    spread = spread_of(shipped)
    numbers = (
        spread.rankme(),
        spread.rankme(constant=1e-5),
        spread.rankme(centred=True),
        spread.rankme(centred=True, power=2),
        spread.participation_ratio,
    )
    assert [round(number, 2) for number in numbers] == [55.66, 56.52, 61.71, 11.90, 7.52]


def test_shares_of_variance_and_participation_ratio_are_those_of_a_pca(shipped) -> None:
    pca = PCA(svd_solver="full").fit(shipped)
    shares = pca.explained_variance_ratio_ + 1e-7
    spread = spread_of(shipped)
    expected = math.exp(-(shares * np.log(shares)).sum())
    assert spread.rankme(centred=True, power=2) == pytest.approx(expected, rel=1e-10)
    values = pca.explained_variance_
    expected = values.sum() ** 2 / (values**2).sum()
    assert spread.participation_ratio == pytest.approx(expected, rel=1e-10)


SPECTRA = {
    "flat": np.ones(96),
    "power law": 1 / np.arange(1, 97),
    "down to 1e-6": np.logspace(0, -6, 96),
    "down to 1e-12": np.logspace(0, -12, 96),
    "five directions": np.r_[np.ones(5), np.zeros(91)],
    "one and 1e-7": np.r_[1, np.full(95, 1e-7)],
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("offset", [0, 10])
@pytest.mark.parametrize("n", [50, 700])
def test_what_half_the_digits_cost_is_bounded(spectrum: str, offset: int, n: int) -> None:
    rotation = np.linalg.qr(noise(96, 96))[0]
    x = (noise(n, 96, seed=1) * SPECTRA[spectrum]) @ rotation + offset
    spread = spread_of(x)
    for centred, found in ((False, spread.singular_values), (True, spread.centred_singular_values)):
        exact = np.linalg.svd(x - centred * x.mean(axis=0), compute_uv=False)
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-7 * exact[0])
        expected = rankme_by_svd(x, centred=centred)
        assert spread.rankme(centred=centred) == pytest.approx(expected, rel=1e-4)


def test_a_mean_far_from_zero_costs_the_centred_numbers_nothing() -> None:
    x = noise(300, 16) * np.logspace(0, -4, 16)
    near, far = spread_of(x), spread_of(x + 1e6)
    assert far.rankme(centred=True) == pytest.approx(near.rankme(centred=True), rel=1e-4)
    assert far.participation_ratio == pytest.approx(near.participation_ratio, rel=1e-6)
    assert far.rankme() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("n", [2, 3, 40])
def test_uniformity_is_the_mean_over_pairs(n: int) -> None:
    x = noise(n, 5)
    assert spread_of(x).uniformity == pytest.approx(uniformity_by_loops(x), rel=1e-6)


def test_features_of_zeros_have_no_uniformity() -> None:
    assert math.isnan(FeatureAccumulator().update(torch.zeros(5, 3)).result().uniformity)


def test_uniformity_over_several_blocks_is_that_of_pdist() -> None:
    from scipy.spatial.distance import pdist

    x = noise(2500, 6)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = math.log(np.exp(-2 * pdist(unit, "sqeuclidean")).mean())
    assert spread_of(x).uniformity == pytest.approx(expected, rel=1e-6)


def test_uniformity_of_many_samples_is_that_of_a_bounded_random_choice() -> None:
    x = noise(9000, 4)
    found, again = spread_of(x), spread_of(x, batch=1000)
    assert found.uniformity_n == 4096
    assert again.uniformity == found.uniformity  # of the seed, not of the batches
    assert spread_of(x, seed=1).uniformity != found.uniformity
    # on a sphere: E exp(-4 + 4 c), c the cosine of two random directions
    c = np.linspace(-1, 1, 200_001)
    density = (1 - c**2) ** 0.5  # d = 4: (1 - c^2)^((d - 3) / 2)
    expected = math.log((np.exp(-4 + 4 * c) * density).sum() / density.sum())
    assert found.uniformity == pytest.approx(expected, abs=0.02)


def test_the_choice_of_merged_parts_holds_both() -> None:
    low, high = noise(5000, 3), noise(5000, 3, seed=1) + 100
    merged = FeatureAccumulator(seed=1).update(low).merge(FeatureAccumulator(seed=2).update(high))
    assert merged.result().uniformity_n == 4096
    directions = merged._kept.numpy().min(axis=1) > 0.5
    assert 0.45 < directions.mean() < 0.55


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    seed=st.integers(0, 99),
    normalize=st.booleans(),
)
@settings(deadline=None, max_examples=30)
def test_parts_give_what_the_whole_gives(sizes: list[int], seed: int, normalize: bool) -> None:
    x = noise(sum(sizes), 6, seed=seed) + 1
    whole = spread_of(x, batch=len(x), normalize=normalize)
    merged = FeatureAccumulator(normalize=normalize)
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        merged.merge(FeatureAccumulator(normalize=normalize, seed=len(part)).update(part))
    found = merged.merge(FeatureAccumulator(normalize=normalize)).result()
    assert (found.n, found.d, found.uniformity_n) == (len(x), 6, len(x))
    for name in ("singular_values", "centred_singular_values", "uniformity"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(whole, name), rtol=1e-7, atol=1e-6, err_msg=name
        )


@given(seed=st.integers(0, 99), factor=st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=30)
def test_a_rotation_and_another_scale_change_no_number(seed: int, factor: float) -> None:
    x = noise(40, 6, seed=seed) + 1
    rotation = np.linalg.qr(noise(6, 6, seed=seed + 1))[0]
    before, after = (spread_of(rows).to_dict() for rows in (x, factor * x @ rotation))
    for name, value in before.items():
        assert after[name] == pytest.approx(value, rel=1e-6), name


def test_unit_norm_is_that_of_the_features_scaled_first() -> None:
    x = noise(50, 6) * np.arange(1, 51)[:, None]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    found, expected = spread_of(x, normalize=True), spread_of(unit)
    assert (found.unit_norm, expected.unit_norm) == (True, False)
    np.testing.assert_allclose(found.singular_values, expected.singular_values, rtol=1e-12)
    assert found.uniformity == expected.uniformity


def test_numpy_and_torch_of_any_precision_are_taken() -> None:
    x = noise(20, 4).astype(np.float16)
    expected = spread_of(x.astype(np.float64)).to_dict()
    for given_rows in (x, torch.from_numpy(x), torch.from_numpy(x).float().requires_grad_()):
        assert FeatureAccumulator().update(given_rows).result().to_dict() == expected


def test_features_that_are_all_the_same_fill_one_direction() -> None:
    row = np.random.default_rng(0).standard_normal(50) * math.pi
    found = spread_of(np.tile(row, (333, 1)))
    assert found.rankme() == pytest.approx(1, abs=1e-4)
    assert found.uniformity == pytest.approx(0, abs=1e-6)
    assert math.isnan(found.participation_ratio)
    document = found.to_dict()
    assert document["rankme_centred_1e-7"] is document["participation_ratio_centred"] is None
    one = spread_of(row[None]).to_dict()
    assert (one["n"], one["uniformity_n"], one["uniformity_t2"]) == (1, 1, None)
    assert spread_of(np.zeros((3, 2))).to_dict()["rankme_uncentred_1e-7"] is None


def test_more_samples_can_follow_a_result() -> None:
    x = noise(30, 4)
    accumulator = FeatureAccumulator().update(x[:10])
    assert accumulator.result().n == 10
    buffer = x[10:].copy()
    accumulator.update(buffer)
    buffer[:] = 0  # the caller fills the same buffer again
    assert accumulator.n == 30
    assert accumulator.result().to_dict() == pytest.approx(spread_of(x, batch=10).to_dict())


def test_what_cannot_be_measured_is_refused() -> None:
    accumulator = FeatureAccumulator().update(noise(4, 3))
    with pytest.raises(ParameterError, match=r"must be n x 3, got shape \(4, 2\)"):
        accumulator.update(noise(4, 2))
    with pytest.raises(ParameterError, match=r"must be n x d, got shape \(4,\)"):
        FeatureAccumulator().update(np.ones(4))
    with pytest.raises(ParameterError, match="NaN or infinite"):
        accumulator.update(np.array([[1, np.nan, 0]]))
    with pytest.raises(ParameterError, match="same dimension and norm"):
        accumulator.merge(FeatureAccumulator(normalize=True))
    with pytest.raises(ParameterError, match="same dimension and norm"):
        accumulator.merge(FeatureAccumulator().update(noise(2, 2)))
    with pytest.raises(ParameterError, match="no samples"):
        FeatureAccumulator().update(np.zeros((0, 3))).result()
    assert accumulator.n == 4
