"""Pictures of an audit: what is drawn is what was measured, and groups that were planted show."""

from __future__ import annotations

import builtins
import io

import numpy as np
import pytest
from matplotlib.axes import Axes
from sklearn.metrics import silhouette_score

import collapse_audit
from collapse_audit.errors import ParameterError
from collapse_audit.head_audit import CollapseAudit, audit_prototypes
from collapse_audit.plots.sweep import bracket_band
from collapse_audit.redundancy import measure_redundancy
from collapse_audit.similarity import expected_n_eff
from tests.example_heads import HEADS, collapsed, noisy, random_unit


@pytest.fixture(scope="module")
def audit() -> CollapseAudit:
    return audit_prototypes(collapsed(np.random.default_rng(0), 300, 32, 20))


def curve(ax: Axes, label: str) -> np.ndarray:
    (found,) = [line for line in ax.get_lines() if line.get_label() == label]
    return np.asarray(found.get_xydata())


def clusters(seed: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Five tight directions far from each other, and which of them each row is near to."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(5), each)
    return noisy(rng, random_unit(np.random.default_rng(9), 5, 32)[labels], 0.35), labels


# -- sweep -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chained", "wide groups", "cone 0.8", "half collapsed", "plane"])
def test_the_band_of_a_sweep_holds_the_count_of_every_scan_order(name: str) -> None:
    head, rng = HEADS[name](), np.random.default_rng(0)
    rows = np.asarray(head.weight)
    epsilons = np.geomspace(head.epsilon / 30, min(0.9, head.epsilon * 30), 12).tolist()
    found = measure_redundancy(rows, epsilon=head.epsilon, sweep=epsilons)
    low, high = bracket_band(found)
    assert (np.diff(high) <= 0).all()
    assert (low >= [level.components for level in found.sweep]).all()
    for _ in range(4):
        order = rng.permutation(len(rows))
        again = measure_redundancy(rows[order], epsilon=head.epsilon, sweep=epsilons)
        counts = np.array([level.greedy for level in again.sweep])
        assert (low <= counts).all()
        assert (counts <= high).all()


def test_the_band_is_the_bracket_at_the_epsilon_of_the_audit_and_reaches_beyond(
    audit: CollapseAudit,
) -> None:
    low, high = bracket_band(audit.redundancy)
    at = [level.threshold for level in audit.redundancy.sweep].index(0.025)
    bracket = audit.redundancy.bracket
    assert (low[at], high[at]) == (bracket.low, bracket.high)
    ax = collapse_audit.plot_sweep(audit)
    (band,) = ax.collections
    drawn = band.get_paths()[0].vertices
    assert {(0.025, bracket.low), (0.025, bracket.high)} <= set(map(tuple, drawn.tolist()))
    assert not collapse_audit.plot_sweep(audit.redundancy.sweep).collections


def test_the_null_of_the_effective_number_is_what_random_directions_have() -> None:
    rng, k, d, epsilon = np.random.default_rng(0), 200, 6, 0.3
    found = [
        measure_redundancy(random_unit(rng, k, d), epsilon=epsilon, sweep=(), nearest=False)
        for _ in range(40)
    ]
    values = np.array([one.n_eff.value for one in found])
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert expected_n_eff(epsilon, k, d) == pytest.approx(values.mean(), abs=4 * error)
    assert values.mean() < 0.5 * k
    assert expected_n_eff(0.025, 65536, 256) == 65536
    assert expected_n_eff(0.5, 1000, 1) == pytest.approx(2.0)


def test_a_sweep_has_the_null_of_its_size(audit: CollapseAudit) -> None:
    drawn = curve(collapse_audit.plot_sweep(audit), "random directions, $N_{eff}$ (D = 32)")
    expected = [expected_n_eff(epsilon, 300, 32) for epsilon in drawn[:, 0]]
    np.testing.assert_allclose(drawn[:, 1], expected)
    np.testing.assert_allclose(drawn[[0, -1], 0], [0.005, 0.5])


def test_heads_of_several_sizes_are_drawn_by_rising_k_with_their_brackets() -> None:
    rng = np.random.default_rng(1)
    audits = [audit_prototypes(collapsed(rng, k, 16, 8, 0.16)) for k in (128, 32, 64)]
    ax = collapse_audit.plot_unique_vs_k({"collapsed": audits, "one": audits[:1]})
    drawn, (low, high), _ = ax.containers[0].lines[0], ax.containers[0].lines[1], None
    rising = sorted(audits, key=lambda one: one.redundancy.k)
    assert drawn.get_xydata().tolist() == [[a.redundancy.k, a.num_unique] for a in rising]
    assert low.get_ydata().tolist() == [a.redundancy.bracket.low for a in rising]
    assert high.get_ydata().tolist() == [a.redundancy.bracket.high for a in rising]
    assert curve(ax, "$M = K$").tolist() == [[32, 32], [64, 64], [128, 128]]
    other = audit_prototypes(audits[0].prototypes, epsilon=0.1)
    with pytest.raises(ParameterError, match="these have 2"):
        collapse_audit.plot_unique_vs_k([audits[0], other])


# -- the Euclidean metric -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codes() -> CollapseAudit:
    rng = np.random.default_rng(4)
    norms = rng.uniform(1, 50, 300)
    rows = collapsed(rng, 300, 8, 20, 0.3) * norms[:, None]
    return audit_prototypes(rows, metric="euclidean", radius=8.0)


def test_the_band_of_radii_holds_the_count_of_every_scan_order(codes: CollapseAudit) -> None:
    radii = [0.5, 1.1, 2.3, 4.7, 9.5, 20.0, 41.0]
    rows, rng = codes.prototypes.rows, np.random.default_rng(0)
    found = measure_redundancy(rows, metric="euclidean", radius=8.0, sweep=radii)
    low, high = bracket_band(found)
    assert (low < high).any()
    for _ in range(4):
        again = measure_redundancy(
            rng.permutation(rows), metric="euclidean", radius=8.0, sweep=radii
        )
        counts = np.array([level.greedy for level in again.sweep])
        assert (low <= counts).all()
        assert (counts <= high).all()
    ax = collapse_audit.plot_sweep(codes)
    assert ax.get_xlabel() == "radius (distance)"
    assert not any("random" in str(line.get_label()) for line in ax.get_lines())


@pytest.mark.parametrize("kind", ["ecdf", "density"])
def test_distances_are_drawn_instead_of_cosines(codes: CollapseAudit, kind: str) -> None:
    ax = collapse_audit.plot_nearest(codes, kind=kind)
    assert codes.redundancy.nearest is not None
    distances = codes.redundancy.nearest.distance
    if kind == "ecdf":
        drawn = curve(ax, "K = 300 prototypes")
        np.testing.assert_array_equal(drawn[1:, 0], np.sort(distances))
    else:
        heights, ends = np.histogram(distances, 60, (0, max(8, distances.max())), density=True)
        np.testing.assert_allclose([bar.get_height() for bar in ax.containers[0]], heights)
        np.testing.assert_allclose([bar.get_x() for bar in ax.containers[0]], ends[:-1], atol=1e-9)
    assert curve(ax, "radius = 8")[:, 0].tolist() == [8, 8]
    assert "random directions, D = 8" not in {line.get_label() for line in ax.get_lines()}


def test_groups_of_points_are_drawn_by_distance_and_mapped(codes: CollapseAudit) -> None:
    ax = collapse_audit.plot_largest_groups(codes, groups=3, members=4)
    drawn = np.asarray(ax.images[0].get_array())
    points = codes.prototypes.rows[codes.redundancy.leaders[:3]]
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    np.testing.assert_allclose(drawn[::4, ::4], apart, atol=1e-6)
    assert (drawn[0, :4] < 8).all()
    points_drawn = collapse_audit.plot_prototype_map(codes).collections[0].get_offsets()
    assert len(points_drawn) == codes.num_unique
    with pytest.raises(ParameterError, match="in the Euclidean metric"):
        collapse_audit.plot_class_map(codes, np.ones((3, 8)))
    cosine = audit_prototypes(codes.prototypes)
    with pytest.raises(ParameterError, match="these have 2"):
        collapse_audit.plot_unique_vs_k([codes, cosine])


# -- nearest ---------------------------------------------------------------------------------------


def test_the_share_up_to_a_cosine_is_drawn_beside_random_directions(audit: CollapseAudit) -> None:
    drawn = curve(collapse_audit.plot_nearest(audit), "K = 300 prototypes")
    assert audit.redundancy.nearest is not None
    np.testing.assert_array_equal(drawn[1:, 0], np.sort(audit.redundancy.nearest.cosine))
    np.testing.assert_allclose(drawn[:, 1], np.arange(301) / 300)
    assert curve(collapse_audit.plot_nearest(audit), "$1 - \\epsilon$ = 0.975")[0, 0] == 0.975


def test_random_directions_lie_on_their_null() -> None:
    ax = collapse_audit.plot_nearest(
        audit_prototypes(random_unit(np.random.default_rng(2), 4000, 16))
    )
    drawn, null = curve(ax, "K = 4,000 prototypes"), curve(ax, "random directions, D = 16")
    assert len(drawn) <= 2001
    # Kolmogorov and Smirnov: 1.95 / sqrt(n) at 0.1 %
    assert np.abs(np.interp(drawn[:, 0], *null.T) - drawn[:, 1]).max() < 1.95 / np.sqrt(4000)


def test_a_density_has_unit_area_and_so_has_its_null(audit: CollapseAudit) -> None:
    ax = collapse_audit.plot_nearest(audit, kind="density")
    bars = ax.containers[0]
    assert sum(bar.get_width() * bar.get_height() for bar in bars) == pytest.approx(1)
    null = curve(ax, "random directions, D = 32")
    assert np.trapezoid(null[:, 1], null[:, 0]) == pytest.approx(1, abs=0.01)
    with pytest.raises(ParameterError, match="'ecdf' or 'density', got 'pdf'"):
        collapse_audit.plot_nearest(audit, kind="pdf")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="not searched"):
        collapse_audit.plot_nearest(audit_prototypes(audit.prototypes, nearest=False))


@pytest.mark.parametrize("kind", ["ecdf", "density"])
def test_two_prototypes_and_one_dimension_can_be_drawn(kind: str) -> None:
    for rows in ([[1.0, 0.0], [0.0, 1.0]], [[1.0], [-2.0], [3.0]], [[1.0], [-1.0]]):
        ax = collapse_audit.plot_nearest(audit_prototypes(np.array(rows)), kind=kind)
        ax.figure.savefig(io.BytesIO(), format="svg")


# -- largest groups --------------------------------------------------------------------------------


def test_the_largest_groups_are_blocks_of_their_cosines(audit: CollapseAudit) -> None:
    ax = collapse_audit.plot_largest_groups(audit, groups=3, members=5)
    drawn = np.asarray(ax.images[0].get_array())
    assert drawn.shape == (15, 15)
    same = np.repeat(np.arange(3), 5)[:, None] == np.repeat(np.arange(3), 5)
    assert drawn[same].min() > 0.975 > drawn[~same].max()
    labels = [tick.get_text() for tick in ax.get_xticklabels()]
    assert labels == [str(r) for r in audit.redundancy_factors[:3]]
    # the first member of each is the leader, and cosines with it fall
    leaders = audit.prototypes.unit_rows(audit.redundancy.leaders[:3])
    np.testing.assert_allclose(drawn[::5, ::5], np.clip(leaders @ leaders.T, -1, 1), atol=1e-12)
    assert (np.diff(drawn[0, :5]) <= 0).all()
    with pytest.raises(ParameterError, match="at least 1 group and 2 members"):
        collapse_audit.plot_largest_groups(audit, groups=0)


# -- maps ------------------------------------------------------------------------------------------


def test_a_map_of_planted_groups_separates_them() -> None:
    rows, labels = clusters(3, 40)
    copies = np.concatenate([rows, rows[:7], rows[:7]])
    found = audit_prototypes(copies)
    assert found.num_unique == len(rows)  # the groups are wider than epsilon
    ax = collapse_audit.plot_prototype_map(found)
    points, factors = ax.collections[0].get_offsets(), ax.collections[0].get_array()
    order = np.argsort(found.redundancy_factors, kind="stable")
    assert factors.tolist() == found.redundancy_factors[order].tolist()
    of_points = labels[found.redundancy.leaders][order]
    assert silhouette_score(points, of_points) > 0.6
    assert silhouette_score(points, np.random.default_rng(0).permutation(of_points)) < 0.1
    assert ax.get_title() == "200 unique prototypes\nt-SNE, perplexity 30, seed 0"
    again = collapse_audit.plot_prototype_map(found).collections[0].get_offsets()
    np.testing.assert_array_equal(points, again)


def test_a_map_says_what_it_left_out_and_takes_few_points(audit: CollapseAudit) -> None:
    ax = collapse_audit.plot_prototype_map(audit, limit=10, seed=4)
    assert len(ax.collections[0].get_offsets()) == 10
    assert ax.get_title() == "10 of 20 unique prototypes\nt-SNE, perplexity 3, seed 4"
    with pytest.raises(ParameterError, match="at least 4 points of 2 dimensions, got 3 of 32"):
        collapse_audit.plot_prototype_map(audit, limit=3)
    with pytest.raises(ParameterError, match="perplexity must be above 0"):
        collapse_audit.plot_prototype_map(audit, perplexity=0)
    with pytest.raises(ParameterError, match="'tsne' or 'umap', got 'pca'"):
        collapse_audit.plot_prototype_map(audit, method="pca")  # type: ignore[arg-type]


def test_samples_lie_at_the_prototypes_of_their_class() -> None:
    rows, labels = clusters(5, 8)
    found = audit_prototypes(rows)
    features, of_samples = clusters(6, 30)
    winners = np.zeros(len(features), dtype=np.int64)
    unique = labels[found.redundancy.leaders]
    for cluster in range(5):
        winners[of_samples == cluster] = np.flatnonzero(unique == cluster)[0]
    ax = collapse_audit.plot_class_map(found, 7 * features, winners=winners, classes=5)
    dots, diamonds = ax.collections[2::2], ax.collections[3::2]
    assert [len(one.get_offsets()) for one in ax.collections[:2]] == [35, 0]
    assert [len(one.get_offsets()) for one in dots] == [30] * 5
    assert [len(one.get_offsets()) for one in diamonds] == [1] * 5
    points = np.concatenate([one.get_offsets() for one in dots])
    assert silhouette_score(points, np.repeat(np.arange(5), 30)) > 0.6
    for of_class, prototype in zip(dots, diamonds, strict=True):
        centres = np.array([np.mean(one.get_offsets(), axis=0) for one in dots])
        nearest = np.linalg.norm(centres - prototype.get_offsets(), axis=1).argmin()
        assert dots[nearest] is of_class
    assert "5 latent classes" in ax.get_title()
    assert len({tuple(one.get_facecolor()[0]) for one in diamonds}) == 5


def test_the_class_of_a_sample_is_that_of_its_nearest_prototype(audit: CollapseAudit) -> None:
    features = noisy(np.random.default_rng(1), audit.prototypes.unit_rows()[:90], 0.01)
    ax = collapse_audit.plot_class_map(audit, features)
    counts = np.sort(np.bincount(audit.groups[:90], minlength=20))[::-1]
    sizes = [len(one.get_offsets()) for one in ax.collections]
    assert [sizes[1], *sizes[2::2]] == [counts[6:].sum(), *counts[:6]]
    assert [sizes[0], *sizes[3::2]] == [14, 1, 1, 1, 1, 1, 1]
    for bad, said in (
        (np.ones((3, 4)), "n x 32 .* got shape"),
        (np.zeros((3, 32)), "none may be all zeros"),
    ):
        with pytest.raises(ParameterError, match=said):
            collapse_audit.plot_class_map(audit, bad)
    with pytest.raises(ParameterError, match="90 classes from 0 to 19"):
        collapse_audit.plot_class_map(audit, features, winners=np.full(90, 20))
    with pytest.raises(ParameterError, match="classes must be from 1 to 7"):
        collapse_audit.plot_class_map(audit, features, classes=8)


def test_umap_is_asked_for_by_name_where_it_is_missing(
    audit: CollapseAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "umap":
            raise ImportError(name)
        return genuine(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ParameterError, match="umap-learn is not installed"):
        collapse_audit.plot_prototype_map(audit, method="umap")


# -- side by side, files ---------------------------------------------------------------------------


def test_heads_side_by_side_have_equal_axes_and_colours(audit: CollapseAudit) -> None:
    other = audit_prototypes(random_unit(np.random.default_rng(8), 40, 32))
    heads = {"collapsed": audit, "random": other}
    for plot in (
        collapse_audit.plot_sweep,
        collapse_audit.plot_redundancy_factors,
        collapse_audit.plot_redundancy_histogram,
        collapse_audit.plot_largest_groups,
        collapse_audit.plot_nearest,
        collapse_audit.plot_prototype_map,
    ):
        left, right = collapse_audit.plot_side_by_side(plot, heads)
        assert left.figure is right.figure
        equal = (left.get_xlim(), left.get_ylim()) == (right.get_xlim(), right.get_ylim())
        assert equal is (plot is not collapse_audit.plot_prototype_map)
        assert left.get_title().startswith("collapsed\n")
        colours = [one.get_clim() for ax in (left, right) for one in (*ax.images, *ax.collections)
                   if one.get_array() is not None]  # fmt: skip
        assert len(set(colours)) <= 1
    ends = [
        one.get_xlim()
        for one in collapse_audit.plot_side_by_side(collapse_audit.plot_nearest, heads)
    ]
    assert ends[0][0] <= curve(collapse_audit.plot_nearest(other), "K = 40 prototypes")[:, 0].min()
    with pytest.raises(ParameterError, match="nothing to draw"):
        collapse_audit.plot_side_by_side(collapse_audit.plot_sweep, {})


def test_a_vector_file_of_many_prototypes_stays_small(
    audit: CollapseAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = audit_prototypes(random_unit(np.random.default_rng(3), 6000, 3), epsilon=1e-9)
    for plot in (collapse_audit.plot_nearest, collapse_audit.plot_redundancy_factors):
        file = io.BytesIO()
        plot(many).figure.savefig(file, format="svg")
        assert len(file.getvalue()) < 200_000
    assert not collapse_audit.plot_prototype_map(audit).collections[0].get_rasterized()
    monkeypatch.setattr("collapse_audit.plots.axes._MANY_POINTS", 10)
    assert collapse_audit.plot_prototype_map(audit).collections[0].get_rasterized()
