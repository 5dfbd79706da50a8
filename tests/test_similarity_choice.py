"""Ways to be fast that large heads take: folding, rechecking, the choice of an arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from collapse_audit import ParameterError, Prototypes
from collapse_audit.similarity import (
    Comparison,
    Threshold,
    choose_panels,
    cover,
    leader_cover,
    link_groups,
    links,
    predicate,
    survey,
)
from collapse_audit.similarity.products import choice
from collapse_audit.similarity.products.float32 import Float32Panel
from collapse_audit.similarity.products.panel import Operand
from collapse_audit.similarity.products.rows import FoldedRows, UnitRows, leading_directions


@pytest.fixture
def eager(monkeypatch):
    """Small heads take the ways of large ones."""
    monkeypatch.setattr(cover, "_LONG_SCAN", 0)
    monkeypatch.setattr(cover, "_MANY_LEADERS", 0.0)
    monkeypatch.setattr(choice, "_FOLD_CANDIDATES", 1.0)


HEADS = ["d = 256", "d = 1024", "healthy, wide", "cone, wide"]


@pytest.fixture(params=HEADS)
def head(request, make_head, kinds, definition):
    if request.param.startswith("d ="):
        found = make_head(request.param)
        return found.prototypes, found.truth
    rng = np.random.default_rng(3)
    rows = kinds.random_unit(rng, 150, 128)
    rows += np.eye(128)[0] * (1.5 if "cone" in request.param else 0)
    twins = [kinds.at_distance(rng, row / np.linalg.norm(row), np.array([0.025])) for row in rows]
    rows = rng.permutation(np.concatenate([rows, *twins])).astype(np.float32)
    return Prototypes.from_weight(rows), definition(rows, 0.025)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("many", [0, 5, 10**9])
def test_folding_and_rechecking_change_no_answer(monkeypatch, head, panels, many):
    monkeypatch.setattr(predicate, "_MANY", many)
    prototypes, truth = head
    compared = Comparison(prototypes, Threshold(truth.epsilon), panels=panels)
    found = leader_cover(compared, block_rows=50)
    assert compared._fold is not None
    assert (found.leaders.tolist(), found.group.tolist()) == truth.greedy()
    links = link_groups(compared, found)
    assert links.num_components == truth.components
    assert links.neighbours.tolist() == truth.neighbours
    for level in survey(compared, [0.01, 0.03]).levels:
        there = truth.at(level.threshold)
        assert level.greedy == len(there.greedy()[0])
        assert (level.components, level.isolated) == (there.components, there.isolated)


@pytest.mark.parametrize(("dimensions", "tail"), [(2, 1), (16, 1), (48, 4), (63, 1), (64, 8)])
def test_folded_rows_are_unit_rows_whose_products_are_never_smaller(head, dimensions, tail):
    prototypes, _ = head
    directions = leading_directions(prototypes, dimensions - tail)
    folded = FoldedRows(prototypes, directions, tail_columns=tail)
    assert folded.shape == (prototypes.k, dimensions)
    rows = folded.block(slice(None)).astype(np.float64)
    unit = prototypes.unit_rows()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    assert (rows @ rows.T >= unit @ unit.T - 1e-6).all()


@pytest.mark.parametrize("name", ["chained", "wide groups near by"])
def test_links_that_connect_nothing_new_may_be_forgotten_at_any_time(monkeypatch, make_head, name):
    monkeypatch.setattr(links, "_MOST_LINKS", -(10**9))
    found = make_head(name)
    compared = Comparison(found.prototypes, Threshold(found.epsilon))
    linked = link_groups(compared, leader_cover(compared))
    assert linked.num_components == found.truth.components
    assert linked.neighbours.tolist() == found.truth.neighbours


def test_rows_gathered_for_one_panel_are_not_taken_for_those_of_a_later_one():
    # Panels come and go while an operand lives, and a new one may get the address of an old one.
    rng = np.random.default_rng(0)
    both = Operand(np.arange(2))
    for _ in range(50):
        rows = rng.standard_normal((2, 3))
        panel = Float32Panel(UnitRows(Prototypes.from_weight(rows)))
        cosine = rows[0] @ rows[1] / np.linalg.norm(rows, axis=1).prod()
        assert panel.tile(both, both)[0, 1] == pytest.approx(cosine, abs=1e-6)
        del panel


def test_an_arithmetic_can_be_chosen_by_argument_and_by_environment(monkeypatch, make_head):
    prototypes = make_head("collapsed").prototypes
    names = {"numpy": "Float32Panel", "float32": "TorchFloat32Panel", "bfloat16": "BFloat16Panel"}
    for name, kind in names.items():
        assert choose_panels(prototypes, arithmetic=name).first.__name__ == kind
        monkeypatch.setenv("COLLAPSE_AUDIT_ARITHMETIC", name)
        assert choose_panels(prototypes).first.__name__ == kind
    monkeypatch.setenv("COLLAPSE_AUDIT_ARITHMETIC", "fp8")
    with pytest.raises(ParameterError, match=r"unknown arithmetic 'fp8'\. .*may be one of auto,"):
        choose_panels(prototypes)
    assert choose_panels(prototypes, arithmetic="auto").first.__name__ in names.values()
