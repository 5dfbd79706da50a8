from types import SimpleNamespace

import numpy as np
import pytest

from collapse_audit import plots
from collapse_audit.errors import ParameterError
from collapse_audit.mlcd import MLCDAccumulator
from collapse_audit.prototypes import Prototypes
from collapse_audit.similarity import NEff


@pytest.fixture
def mlcd():
    generator = np.random.default_rng(0)
    p = Prototypes.from_weight(generator.standard_normal((12, 4)))
    groups = np.array([0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8])
    accumulator = MLCDAccumulator(p, temperature=0.1, groups=groups)
    return accumulator.update(generator.standard_normal((50, 4))).result()


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.get_lines()}


def test_both_levels_share_one_axes_scaled_to_the_uniform_line(mlcd):
    drawn = lines(plots.plot_rank_frequency(mlcd))
    np.testing.assert_allclose(drawn["K = 12"][:, 1], mlcd.rank_frequency("k") * 12)
    np.testing.assert_allclose(drawn["M = 9"][:, 1], mlcd.rank_frequency("m") * 9)
    np.testing.assert_allclose(drawn["M = 9"][-1, 0], 1.0)


def test_redundancy_is_drawn_against_mass(mlcd):
    drawn = lines(plots.plot_redundancy_vs_mass(mlcd))
    np.testing.assert_allclose(drawn["unique prototype"][:, 0], mlcd.redundancy_factors)
    np.testing.assert_allclose(drawn["unique prototype"][:, 1], mlcd.unique_probabilities)


def test_usage_ends_at_what_was_used(mlcd):
    drawn = lines(plots.plot_usage(mlcd))
    assert drawn["prototypes (K = 12)"][-1].tolist() == [50, mlcd.usage("k").used]
    assert drawn["unique (M = 9)"][-1].tolist() == [50, mlcd.usage("m").used]
    np.testing.assert_allclose(drawn["uniform draws from K"][-1, 1], mlcd.usage("k").expected_used)


def test_redundancy_factors_are_drawn_in_descending_order():
    ax = plots.plot_redundancy_factors([1, 3, 2])
    assert ax.get_lines()[0].get_ydata().tolist() == [3, 2, 1]
    assert ax.get_title() == "K = 6, M = 3"
    with pytest.raises(ParameterError, match="takes an audit, or m numbers"):
        plots.plot_redundancy_factors([])


def test_a_sweep_is_drawn_by_rule():
    points = [
        SimpleNamespace(
            threshold=0.1, greedy=5, components=4, isolated=3, n_eff=NEff(4.5, 4.5, 4.5)
        ),
        SimpleNamespace(
            threshold=0.025, greedy=9, components=8, isolated=7, n_eff=NEff(8.5, 8.5, 8.5)
        ),
    ]
    drawn = lines(plots.plot_sweep(points))
    assert drawn["greedy cover, M"].tolist() == [[0.025, 9], [0.1, 5]]
    assert drawn["N_eff"].tolist() == [[0.025, 8.5], [0.1, 4.5]]
    assert drawn["isolated"].tolist() == [[0.025, 7], [0.1, 3]]
    with pytest.raises(ParameterError, match="sweep=True"):
        plots.plot_sweep([])


def test_given_axes_are_drawn_on_and_returned(mlcd):
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    for draw in (plots.plot_rank_frequency, plots.plot_redundancy_vs_mass, plots.plot_usage):
        assert draw(mlcd, ax=ax) is ax
        ax.clear()


def test_a_result_without_groups_has_one_level(mlcd):
    from dataclasses import replace

    bare = replace(mlcd, groups=None)
    assert set(lines(plots.plot_rank_frequency(bare))) == {"K = 12", "uniform"}
    plots.plot_usage(bare)
    with pytest.raises(ParameterError, match="no groups"):
        plots.plot_redundancy_vs_mass(bare)
