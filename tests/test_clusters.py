"""The number of clusters of data: planted ones are found, data without any get no estimate."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from sklearn.datasets import load_iris, make_blobs, make_moons

from benchmarks.clusters import Rate
from collapse_audit.cli.entry import main
from collapse_audit.clusters import (
    ClusterEstimate,
    Part,
    Plateau,
    _Linkage,
    _shape,
    estimate_clusters,
)
from collapse_audit.errors import ParameterError

Rows = npt.NDArray[np.float64]


def blobs(clusters: int, d: int = 3, n: int = 400, separation: float = 14) -> Rows:
    """Round Gaussians on the corners of a grid, so far apart."""
    corners = np.stack(np.meshgrid(*[np.arange(3)] * d), axis=-1).reshape(-1, d)[:clusters]
    rows: Rows = make_blobs(n, centers=corners * float(separation), random_state=clusters)[0]
    return rows


def normal(n: int = 400, d: int = 3) -> Rows:
    return np.random.default_rng(0).normal(size=(n, d))


def same(one: ClusterEstimate, other: ClusterEstimate) -> bool:
    """Whether two estimates agree in every bit."""
    return one.to_json() == other.to_json()


@pytest.mark.parametrize("clusters", [2, 3, 5, 8])
def test_separated_blobs_are_counted(clusters: int) -> None:
    found = estimate_clusters(blobs(clusters))
    assert (found.clusters, found.reason) == (clusters, "")
    assert sorted(part.samples for part in found.parts) == pytest.approx(
        [400 / clusters] * clusters, abs=1
    )


def test_there_is_no_estimate_where_there_are_no_clusters() -> None:
    draw = np.random.default_rng(1)
    sphere = draw.normal(size=(400, 5))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    for rows in (normal(), sphere, draw.standard_t(2, (400, 2)), draw.uniform(size=(400, 2))):
        found = estimate_clusters(rows)
        assert found.clusters is None
        assert found.reason


def test_a_blob_that_is_two_gets_no_estimate() -> None:
    draw = np.random.default_rng(2)
    places = np.array([[0, 0], [2.5, 0], [40, 0]])
    rows = np.repeat(places, 300, axis=0) + draw.normal(size=(900, 2))
    found = estimate_clusters(rows)
    assert (found.plateaus[0].clusters, found.plateaus[0].votes) == (2, 16)
    assert found.reason == "one of 2 parts is longer than it is wide: several clusters?"


def test_the_flowers_get_no_estimate_and_not_two() -> None:
    """Of three kinds two overlap: the plateau alone would say two."""
    found = estimate_clusters(load_iris().data)
    assert found.plateaus[0].clusters == 2
    assert found.clusters is None


@pytest.mark.parametrize(("n", "d"), [(66, 8), (72, 16), (90, 16), (300, 8)])
def test_of_few_samples_two_near_clusters_are_not_taken_for_one(n: int, d: int) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        centres = np.zeros((3, d))
        centres[1, 0], centres[2, 1] = 3.0, 40.0
        samples = centres[np.arange(n) % 3] + rng.standard_normal((n, d))
        assert estimate_clusters(samples).clusters in (None, 3)


def test_moons_have_their_plateau_and_no_estimate_for_their_shape() -> None:
    found = estimate_clusters(make_moons(1000, noise=0.05, random_state=0)[0])
    assert found.plateaus[0].clusters == 2
    assert "parts is" in found.reason


@pytest.mark.parametrize("rows", [blobs(4), normal()], ids=["blobs", "normal"])
def test_the_order_of_rows_does_not_matter(rows: Rows) -> None:
    order = np.random.default_rng(3).permutation(len(rows))
    few = {"bootstraps": 3}
    assert same(estimate_clusters(rows, **few), estimate_clusters(rows[order], **few))


@pytest.mark.parametrize("power", [-40, 40, 900])
def test_the_unit_does_not_matter(power: int) -> None:
    rows = blobs(3)
    few = {"bootstraps": 3}
    assert same(estimate_clusters(rows, **few), estimate_clusters(np.ldexp(rows, power), **few))


def test_the_origin_and_the_axes_do_not_matter() -> None:
    rows = blobs(5)
    turn = np.linalg.qr(normal(3))[0]
    found, moved = estimate_clusters(rows), estimate_clusters(rows @ turn + 100)
    assert moved.clusters == found.clusters
    assert moved.plateaus[0].width == pytest.approx(found.plateaus[0].width, rel=0.5)


def test_equal_seeds_give_equal_results_and_others_need_not() -> None:
    rows = normal()
    first, again, other = (estimate_clusters(rows, bootstraps=3, seed=seed) for seed in (5, 5, 6))
    assert same(first, again)
    assert not same(first, other)
    assert len({estimate_clusters(blobs(4), seed=seed).clusters for seed in range(3)}) == 1


def test_m_is_that_of_its_definition_on_both_sides_of_every_threshold() -> None:
    rows = normal(60, 2)
    found = _Linkage.of(rows, 20, np.random.default_rng(0))
    half_squared = cdist(found.centres, found.centres) ** 2 / 2
    thresholds = np.sort(np.concatenate([found.merges * (1 - 1e-9), found.merges * (1 + 1e-9)]))
    plain = [connected_components(half_squared < epsilon)[0] for epsilon in thresholds]
    assert found.components(thresholds).tolist() == plain
    for m, start, stop in found.plateaus(20):
        inside = np.linspace(start * (1 + 1e-9), stop * (1 - 1e-9), 5)
        assert found.components(inside).tolist() == [m] * 5
        assert found.components(np.array([start * (1 - 1e-9)])) > m
        assert found.components(np.array([stop * (1 + 1e-9)])) < m


def test_the_tests_of_shape_have_their_level_and_see_two_blobs_side_by_side() -> None:
    draw = np.random.default_rng(4)
    round_ = [_shape(draw.normal(size=(200, 2))) for _ in range(400)]
    for name in ("p_round", "p_normal"):
        share = np.mean([getattr(part, name) < 0.05 for part in round_])
        assert 0.02 < share < 0.09, name  # 0.05 with a standard error of 0.011
    # the two largest of many equal variances differ less than two of two
    assert np.mean([_shape(draw.normal(size=(200, 9))).p_round < 0.05 for _ in range(200)]) < 0.05
    pair = draw.normal(size=(400, 2)) + np.repeat([[0, 0], [2.5, 0]], 200, axis=0)
    assert _shape(pair).p_round < 1e-6
    assert _shape(pair).elongation == pytest.approx(math.sqrt(1 + 2.5**2 / 4), rel=0.1)
    assert _shape(draw.normal(size=(50, 1))).elongation == 1


def test_copies_of_one_row_are_no_round_cluster() -> None:
    rows = np.concatenate([blobs(2), np.tile([7.0, 7.0, 12.0], (200, 1))])
    found = estimate_clusters(rows)
    assert found.plateaus[0].clusters == 3
    assert "not normal" in found.reason
    on_a_line = _shape(np.outer(normal(100, 1), [1.0, 2.0]))
    assert on_a_line.p_round == pytest.approx(0)


def test_outliers_are_no_clusters_and_spoil_the_shape_of_a_part() -> None:
    rows = np.concatenate([blobs(3), [[500.0, 0, 0], [0, 700.0, 0]]])
    found = estimate_clusters(rows)
    assert (found.plateaus[0].clusters, found.clusters) == (3, None)
    assert found.kept <= found.centres - 2
    assert "one of 3 parts is" in found.reason


def test_the_band_holds_the_curve_on_the_plateau() -> None:
    found = estimate_clusters(blobs(4))
    best = found.plateaus[0]
    inside = (found.epsilons > 1.5 * best.start) & (found.epsilons < best.stop / 1.5)
    assert inside.sum() > 3
    assert set(found.counts[inside]) == set(found.low[inside]) == {4}
    assert found.high[inside].max() <= 5
    assert (found.low <= found.high).all()
    assert found.counts[-1] == 1


SOUND = Part(100, 1.1, 0.5, 0.5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"plateaus": ()}, "no plateau"),
        ({"plateaus": (Plateau(2, 1.0, 1.99, 16),)}, "no count holds while epsilon doubles"),
        ({"plateaus": (Plateau(2, 1.0, 2.0, 16),)}, ""),
        (
            {"plateaus": (Plateau(2, 1.0, 9.0, 16), Plateau(3, 0.3, 1.0, 0))},
            "the plateaus of 2 and of 3 are both wide",
        ),
        ({"plateaus": (Plateau(2, 1.0, 9.0, 16), Plateau(3, 0.34, 1.0, 0))}, ""),
        ({"plateaus": (Plateau(2, 1.0, 9.0, 8),)}, "only 8 of 16 bootstraps agree with 2"),
        ({"plateaus": (Plateau(2, 1.0, 9.0, 9),)}, ""),
        ({"n": 299}, "299 samples are too few"),
        ({"parts": (SOUND, Part(19))}, "has 19 samples"),
        ({"parts": (SOUND, replace(SOUND, p_round=0.024))}, "longer than it is wide"),
        ({"parts": (SOUND, replace(SOUND, p_normal=0.024))}, "not normal"),
        ({"parts": (SOUND, replace(SOUND, p_round=0.026, p_normal=0.026))}, ""),
    ],
)
def test_each_condition_has_its_reason(changes: dict[str, Any], reason: str) -> None:
    empty = np.empty(0, dtype=np.int64)
    found = ClusterEstimate(
        **{
            "n": 300,
            "d": 2,
            "centres": 25,
            "kept": 25,
            "bootstraps": 16,
            "seed": 0,
            "plateaus": (Plateau(2, 1.0, 9.0, 16),),
            "parts": (SOUND, SOUND),
            "epsilons": np.empty(0),
            "counts": empty,
            "low": empty,
            "high": empty,
            **changes,
        }
    )
    assert reason in found.reason
    assert (found.clusters is None) == bool(found.reason) == bool(reason)


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "nan": (np.where(np.arange(300).reshape(100, 3) == 7, np.nan, 1.0), {}, "in 1 rows .first: 2"),
    "infinite": (np.full((100, 2), np.inf), {}, "NaN or infinite values in 100 rows"),
    "few": (normal(63), {}, "63 rows are too few for an estimate: 64 are needed"),
    "more centres than rows": (normal(20), {"centres": 21}, "centres must be 8 to 20, .* got 21"),
    "few centres": (normal(), {"centres": 7}, "centres must be 8 to 400"),
    "constant": (np.ones((100, 3)), {}, "1 different rows, fewer than the 12 centres"),
    "few different": (np.arange(300).reshape(100, 3) % 3, {}, "fewer than the 12 centres"),
    "one place": (
        np.concatenate([np.zeros(57), np.arange(1, 8)])[:, None],
        {"centres": 8},
        "nearly all of the 64 rows are the same",
    ),
    "a vector": (np.ones(100), {}, r"matrix of real numbers .*float64 of shape \(100,\)"),
    "ragged": ([[1.0, 2.0], [3.0]], {}, "its rows differ in length"),
    "no columns": (np.ones((100, 0)), {}, "matrix of real numbers"),
    "words": (np.full((100, 2), "a"), {}, "matrix of real numbers"),
    "bootstraps": (normal(), {"bootstraps": 0}, "bootstraps must be 1 or more, got 0"),
    "seed": (normal(), {"seed": -1}, "seed must be 0 or more, got -1"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_allows_no_answer_is_refused(case: str) -> None:
    rows, options, message = BAD[case]
    with pytest.raises(ParameterError, match=message):
        estimate_clusters(rows, **options)


# --- the command ---------------------------------------------------------------------------------


def test_the_command_says_what_the_function_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = blobs(3)
    np.save(tmp_path / "rows.npy", rows)
    np.savez(tmp_path / "rows.npz", features=rows, labels=np.zeros(len(rows)))
    np.savez(tmp_path / "one.npz", rows)
    np.savetxt(tmp_path / "bare.csv", rows, delimiter=",", fmt="%.17g")
    np.savetxt(
        tmp_path / "named.csv", rows, delimiter=",", fmt="%.17g", header="a,b,c", comments="\ufeff",
        encoding="utf-8",
    )  # fmt: skip
    expected = estimate_clusters(rows).to_dict()
    for name in ("rows.npy", "rows.npz", "one.npz", "bare.csv", "named.csv"):
        assert main(["clusters", str(tmp_path / name), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == expected, name
    assert main(["clusters", str(tmp_path / "rows.npy")]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("3 clusters: the count holds while epsilon grows by a factor of ")


def test_the_command_abstains_with_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clusters", "digits", "--bootstraps", "4", "--seed", "1"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("No estimate: no count holds while epsilon doubles")
    assert max(map(len, printed.splitlines())) <= 100


def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "rows.npy", normal(100))
    np.save(tmp_path / "few.npy", normal(20))
    np.save(tmp_path / "gaps.npy", np.full((100, 2), np.nan))
    np.save(tmp_path / "objects.npy", np.array([{}]))
    np.savez(tmp_path / "two.npz", a=normal(), b=normal())
    np.savez(tmp_path / "none.npz")
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    (tmp_path / "names.csv").write_text("a,b\n", encoding="utf-8")
    (tmp_path / "words.csv").write_text("a,b\n1,2\n3,x\n", encoding="utf-8")
    (tmp_path / "ragged.csv").write_text("1,2\n3\n", encoding="utf-8")
    for words, message in (
        (("rows.npy", "--centres", "101"), "centres must be 8 to 100, the number of rows, got 101"),
        (("few.npy",), "64 are needed. --centres 8 tries with fewer."),
        (("gaps.npy",), "NaN or infinite values"),
        (("objects.npy",), "cannot be read"),
        (("two.npz",), "no array 'features' among a, b"),
        (("none.npz",), "no array 'features' among none"),
        (("damaged.npz",), "not a readable .npz"),
        (("empty.csv",), "no rows of numbers"),
        (("names.csv",), "no rows of numbers"),
        (("words.csv",), "could not convert string 'x'"),
        (("ragged.csv",), "the number of columns changed from 2 to 1"),
        (("missing.npy",), "no such file"),
        (("head.safetensors",), "no data that this command reads"),
    ):
        source, *options = words
        assert main(["clusters", str(tmp_path / source), *options]) == 2, words
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert message in printed.err
        assert len(printed.err.splitlines()) == 1
        assert "internal error" not in printed.err


def test_rates_count_no_estimate_as_right_only_where_there_is_nothing() -> None:
    said = [(3, 3), (3, 2), (3, None), (1, None), (1, 1), (1, 2)]
    assert Rate.of(said) == Rate(right=3, wrong=2, none=1)
