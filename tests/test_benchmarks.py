"""The benchmarks run, keep what they measured, and refuse every number whose answer is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks import __main__ as command
from benchmarks import inputs, measure, plan, products, records, shell, table, targets, whole_audit
from benchmarks.agreement import DisagreementError, check_counts, check_nearest
from benchmarks.inputs import EPSILON, INPUTS
from benchmarks.methods import Answer, Method, chords, nearest_distances
from benchmarks.reference import Reference, _count
from collapse_audit.redundancy import measure_redundancy

K, D = 256, 32


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    """The command with a tiny head, in this process."""
    arguments = ["--quick", "--in-process", "--k", str(K), "--d", str(D)]
    return lambda *more: command.main([*arguments, "--results", str(tmp_path), *more])


def method_named(name: str) -> Method:
    return next(method for method in measure.all_methods() if method.name == name)


def stored(folder: Path, case: str) -> dict[str, dict[str, list[dict[str, float]]]]:
    return json.loads((folder / f"{case}-{K}x{D}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", INPUTS)
def test_planted_counts_are_those_of_a_plain_loop(name: str) -> None:
    head = inputs.make(name, K, D)
    unit = head.rows.astype(np.float64)
    close = unit @ unit.T > 1 - EPSILON
    leaders: list[int] = []
    component = np.arange(K)
    for i in range(K):
        if not close[i, leaders].any():
            leaders.append(i)
        for j in np.flatnonzero(close[i]):
            component[component == component[j]] = component[i]
    degrees = close.sum(axis=1) - 1
    counts = Reference.of(head).counts
    assert counts.greedy == len(leaders)
    assert counts.components == len(set(component.tolist()))
    assert counts.isolated == (degrees == 0).sum()
    assert counts.pairs == degrees.sum() // 2


@pytest.mark.parametrize("name", INPUTS)
def test_rows_have_unit_norm_and_are_the_same_in_every_run(name: str) -> None:
    first, second = inputs.make(name, K, D).rows, inputs.make(name, K, D).rows
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0, atol=1e-6)


def test_the_near_threshold_input_leaves_room_for_the_rounding_of_peers_only() -> None:
    reference = Reference.of(inputs.make("near-threshold", 1024, D))
    assert reference.tighter.pairs <= reference.counts.pairs <= reference.looser.pairs
    assert reference.looser.pairs - reference.tighter.pairs < reference.counts.pairs / 50


def test_brute_force_is_exact_where_a_pair_lies_on_the_threshold() -> None:
    rows = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [-1, 0]], dtype=np.float32)
    below, above = _count(rows, (0.95, 0.97))
    assert (below.greedy, below.components, below.isolated, below.pairs) == (3, 3, 2, 1)
    assert (above.greedy, above.components, above.isolated, above.pairs) == (4, 4, 4, 0)


@pytest.mark.slow
def test_every_method_runs_on_every_input_and_agrees(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--full", "--input", *INPUTS) == 0
    installed = {method.name for method in measure.all_methods() if method.installed}
    for name in INPUTS:
        case = stored(tmp_path, name)
        assert set(case["samples"]) == installed
        assert case["failures"] == {}
        for samples in case["samples"].values():
            assert all(sample["wall"] > 0 and sample["repeats"] >= 1 for sample in samples)
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert text.strip() == capsys.readouterr().out.strip()
    assert text.count("\n### ") == len(INPUTS)


def test_finished_measurements_are_kept_and_fresh_ones_made_on_request(
    run: Callable[..., int], tmp_path: Path
) -> None:
    arguments = ("--input", "healthy", "--only", "audit-auto")
    assert run(*arguments) == 0
    first = stored(tmp_path, "healthy")
    assert run(*arguments) == 0
    assert stored(tmp_path, "healthy") == first
    assert run(*arguments, "sweep-auto") == 0
    longer = stored(tmp_path, "healthy")
    assert longer["samples"]["audit-auto"] == first["samples"]["audit-auto"]
    assert set(longer["samples"]) == {"audit-auto", "sweep-auto"}
    assert run(*arguments, "--fresh") == 0
    assert set(stored(tmp_path, "healthy")["samples"]) == {"audit-auto"}


def test_results_of_other_code_are_not_reused(tmp_path: Path) -> None:
    reference = Reference.of(inputs.make("healthy", K, D))
    store = records.Store(tmp_path, "one")
    store.save(records.Record("healthy", K, D, "one", reference))
    assert store.load("healthy", K, D) is not None
    assert records.Store(tmp_path, "two").load("healthy", K, D) is None


@pytest.mark.parametrize("wrong", ["greedy", "components", "isolated", "pairs"])
def test_a_wrong_count_of_ours_fails_the_run(
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: str,
) -> None:
    true = method_named("audit-auto")

    def read(found: object, rows: inputs.Rows) -> Answer:
        answer = true.read(found, rows)
        return replace(answer, counts={**answer.counts, wrong: answer.counts[wrong] + 1})

    monkeypatch.setattr(command, "all_methods", lambda _: [replace(true, read=read)])
    assert run("--input", "near-threshold") == 1
    assert f"{wrong} is" in capsys.readouterr().err


def test_a_wrong_neighbour_of_ours_fails_the_run(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from collapse_audit.similarity import Nearest

    true = method_named("nearest-auto")

    def shifted(rows: inputs.Rows) -> tuple[str, Nearest]:
        index = (np.arange(len(rows)) + 1) % len(rows)
        return "shifted", Nearest(index=index, distance=chords(rows, index), copies=0)

    monkeypatch.setattr(command, "all_methods", lambda _: [replace(true, run=shifted)])
    assert run("--input", "healthy") == 1
    assert "is not the nearest one by brute force" in capsys.readouterr().err


def test_a_peer_may_be_off_by_the_rounding_of_fp32_and_no_more() -> None:
    peer = method_named("faiss-range")
    counts = Reference.of(inputs.make("healthy", K, D)).counts
    reference = Reference(counts, counts, replace(counts, pairs=3))
    check_counts(peer, Answer(counts={"pairs": 3}), reference)
    with pytest.raises(DisagreementError, match="pairs is 4, expected 0 to 3"):
        check_counts(peer, Answer(counts={"pairs": 4}), reference)
    with pytest.raises(DisagreementError, match="pairs is 3, expected 0"):
        check_counts(method_named("audit-auto"), Answer(counts={"pairs": 3}), reference)


def test_neighbours_are_compared_in_both_directions() -> None:
    ours, peer = method_named("nearest-auto"), method_named("faiss-knn")
    found = np.array([0.1, 0.2])
    check_nearest(ours, found, peer, found + 1e-7, D)
    with pytest.raises(DisagreementError, match="has nearer neighbours"):
        check_nearest(ours, found, peer, found - 1e-6, D)
    with pytest.raises(DisagreementError, match="find different neighbours"):
        check_nearest(ours, found, peer, found + 1e-3, D)


def test_nearest_distances_by_brute_force_are_those_of_a_plain_loop() -> None:
    rows = inputs.make("half-collapsed", K, D).rows
    unit = rows.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    some = np.array([0, 7, K - 1])
    for row, distance in zip(some, nearest_distances(rows, some), strict=True):
        others = np.delete(unit, row, axis=0)
        expected = min(((unit[row] - other) ** 2).sum() / 2 for other in others)
        assert distance == pytest.approx(expected, rel=1e-12)


def test_a_peer_that_fails_is_noted_and_ours_stops_the_run(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise measure.MeasurementError("out of memory")

    monkeypatch.setattr(command, "measure", fail)
    assert run("--input", "healthy", "--only", "faiss-range") == 0
    assert stored(tmp_path, "healthy")["failures"] == {"faiss-range": "out of memory"}
    assert run("--input", "healthy", "--only", "audit-auto") == 1


@pytest.mark.slow
def test_a_measurement_in_its_own_process_gives_the_same_answer(tmp_path: Path) -> None:
    rows = inputs.make("collapsed", K, D).rows
    np.save(tmp_path / "rows.npy", rows)
    method = method_named("nearest-float32")
    sample, answer = measure.measure_apart(
        method, tmp_path / "rows.npy", threads=1, timeout=600, device="cpu"
    )
    assert answer.distance is not None
    here = method.read(method.run(rows), rows)
    np.testing.assert_array_equal(answer.distance, here.distance)
    assert 0 < sample.cpu < 60
    with pytest.raises(measure.MeasurementError, match="not done after"):
        measure.measure_apart(method, tmp_path / "rows.npy", threads=1, timeout=0.01, device="cpu")
    with pytest.raises(measure.MeasurementError, match="No such file"):
        measure.measure_apart(method, tmp_path / "none.npy", threads=1, timeout=600, device="cpu")


def test_peak_memory_is_that_of_the_call() -> None:
    def hold(rows: inputs.Rows) -> int:
        return int(np.ones(len(rows) * 10_000, dtype=np.float64).sum())

    method = Method("hold", "hold", "audit", hold, lambda *_: Answer())
    rows = np.ones((1024, 16), dtype=np.float32)
    sample, _ = measure.measure(replace(method, start=None), rows)
    assert sample.peak_mb == pytest.approx(82, abs=30)


def test_a_part_of_the_product_is_extrapolated_to_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(products, "_WHOLE", 64)
    monkeypatch.setattr(products, "_MEASURED_ROWS", 32)
    rows = inputs.make("healthy", 128, D).rows
    for name, share in (("product", 32 / 128), ("triangle", 2 * 32 / 128)):
        method = method_named(name)
        assert method.read(method.run(rows), rows).share == pytest.approx(share)


def test_the_fastest_product_is_one_of_fp32() -> None:
    rows = inputs.make("healthy", K, D).rows
    exact = products._time(lambda a, b, out: np.matmul(a, b.T, out=out), rows, rows)
    assert 0 < exact < float("inf")

    def coarse(left: inputs.Rows, right: inputs.Rows, out: products.Tile) -> None:
        out[:] = (left.astype(np.float16) @ right.T.astype(np.float16)).astype(np.float32)

    assert products._time(coarse, rows, rows) == float("inf")


def test_targets_compare_medians_at_their_own_size_only() -> None:
    reference = Reference.of(inputs.make("healthy", K, D))

    def sample(wall: float) -> measure.Sample:
        return measure.Sample(wall, 2 * wall, 1.0, 0.0, 1, 0.0, 1.0, {}, "")

    walls = {"audit-auto": (0.5, 1.0, 9.0), "faiss-range": (13.0,), "product": (2.0,)}
    samples = {name: [sample(wall) for wall in group] for name, group in walls.items()}
    record = records.Record("healthy", 65536, 256, "", reference, samples)
    small = replace(record, k=4096)
    text = table.render_targets([small, record], measure.all_methods())
    ratios = {target.method: wall for target, wall, _ in targets.verdicts([small, record])}
    assert ratios == {"faiss-range": 13.0, "product": 2.0}
    assert "at least 12 | 13 (13) | held" in text
    assert "at least 3 | 2 (2) | **missed**" in text


@pytest.mark.parametrize("package", ["faiss", "sklearn"])
def test_the_script_beside_the_command_answers_the_same(
    tmp_path: Path,
    package: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(package)
    rows = inputs.make("half-collapsed", 2048, D).rows
    save_file({"weight": rows}, tmp_path / "head.safetensors")
    monkeypatch.setattr(sys, "argv", ["script", package, str(tmp_path / "head.safetensors")])
    whole_audit.main()
    answer = json.loads(capsys.readouterr().out)
    found = measure_redundancy(rows)
    names = ("greedy", "components", "isolated")
    assert answer["sweep"] == [
        {"epsilon": level.threshold, **{name: getattr(level, name) for name in names}}
        for level in found.sweep
    ]
    assert found.nearest is not None
    quantiles = np.quantile(found.nearest.cosine, whole_audit.QUANTILES)
    np.testing.assert_allclose(answer["nearest_cosine"], quantiles, atol=1e-6)


def test_whole_commands_are_timed_and_their_answers_compared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "_ROUNDS", 1)
    assert shell.main(["--k", "1024", "--input", "collapsed", "lattice"]) == 0
    text = capsys.readouterr().out
    assert "### From the shell: lattice, 1,024 x 8" in text
    assert text.count("| script with faiss |") == text.count("| collapse-audit |") == 2
    costs = dict.fromkeys(shell._commands()[:1], shell.Cost(1, 1, 1, {"sweep": []}))
    other = dict.fromkeys(
        shell._commands()[3:4],
        shell.Cost(1, 1, 1, {"sweep": [{"greedy": 1, "components": 1, "isolated": 1}]}),
    )
    assert len(list(shell._disagreements("healthy", {**costs, **other}))) == 1
    assert not list(shell._disagreements("lattice", {**costs, **other}))


def test_tables_go_between_the_marks_of_the_page(repository: Path) -> None:
    page = (repository / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    changed = table.insert(page, "new\n")
    assert table.insert(changed, "new\n") == changed
    assert f"{table.BEGIN}\n\nnew\n\n{table.END}" in changed
    with pytest.raises(ValueError, match="the page has no"):
        table.insert("no marks", "new\n")


def test_the_plan_measures_every_target() -> None:
    by_name = {method.name: method for method in measure.all_methods()}
    for target in targets.TARGETS:
        assert target.case in plan.inputs(65536, 256)
        for name in (target.method, target.base):
            assert by_name[name].most >= 65536
            assert plan.planned(by_name[name], target.case, 65536, 256)


def test_a_million_prototypes_must_be_asked_for(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("--k", "1048576")
    assert "add --large" in capsys.readouterr().err
