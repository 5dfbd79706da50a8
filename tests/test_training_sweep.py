"""Sweeps and the train command, on a few steps."""

import dataclasses
import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from click.testing import CliRunner

from collapse_audit.cli.commands.train import train_command
from collapse_audit.cli.console import Session
from collapse_audit.errors import ParameterError
from collapse_audit.training import sweep as sweep_module
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.evaluate import comparison_table
from collapse_audit.training.sweep import parse_sweep, run_sweep, sweep_table


@pytest.fixture
def config(tmp_path: Path) -> HeadTrainingConfig:
    draw = np.random.default_rng(0)
    path = tmp_path / "features.npz"
    np.savez(path, features=draw.normal(size=(40, 6)).astype(np.float32))
    return HeadTrainingConfig(
        data=str(path), k=8, d=4, hidden=8, batch_size=8, iterations=3, warmup=1
    )


def test_values_of_a_sweep_have_the_type_of_their_setting() -> None:
    assert parse_sweep("k=8,16") == ("k", [8, 16])
    assert parse_sweep("weight=0.1,1") == ("weight", [0.1, 1.0])
    assert parse_sweep("regulariser=none") == ("regulariser", ["none"])
    assert parse_sweep("freeze-backbone=true,false") == ("freeze_backbone", [True, False])
    assert parse_sweep("vmf=True,False") == ("vmf", [True, False])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("regularizer=none", "Did you mean regulariser"),
        ("k", "Write the values behind an equals sign"),
        ("k=", "not name=a,b"),
        ("k=,", "not name=a,b"),
        ("vmf=yes", "vmf takes values of type bool"),
        ("k=few", "k takes values of type int"),
    ],
)
def test_sweeps_that_mean_nothing_are_refused(text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        parse_sweep(text)


def test_a_bad_value_is_refused_before_anything_is_trained(
    config: HeadTrainingConfig, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match="no 'koleo-prot'"):
        run_sweep(config, ["regulariser=none,koleo-prot"], tmp_path / "sweep", quiet=True)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_a_sweep_trains_each_combination_once_and_reads_finished_ones_back(
    config: HeadTrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sweep"
    sweeps = ["seed=0,1", "k=8,12", "regulariser=none,koleo-proto"]
    rows = run_sweep(config, sweeps, folder, quiet=True)
    assert [(row["seed"], row["k"], row["regulariser"]) for row in rows] == [
        (seed, k, regulariser)
        for seed in (0, 1)
        for k in (8, 12)
        for regulariser in ("none", "koleo-proto")
    ]
    assert json.loads((folder / "sweep.json").read_text()) == json.loads(json.dumps(rows))
    assert (folder / "sweep.md").read_text() == sweep_table(rows) + "\n"
    assert "<svg" in (folder / "sweep.svg").read_text()
    with monkeypatch.context() as patch:
        patch.setattr(sweep_module, "run_training", None)  # a second run must not train
        assert json.dumps(run_sweep(config, sweeps, folder, quiet=True)) == json.dumps(rows)


@pytest.mark.parametrize("damage", [b"", b"\xff", b"[" * 100_000, b"[1]", b'{"config": 1}'])
def test_a_damaged_result_is_made_again(
    config: HeadTrainingConfig, tmp_path: Path, damage: bytes
) -> None:
    rows = run_sweep(config, ["k=8"], tmp_path, quiet=True)
    result = tmp_path / "k-8" / "audit.json"
    sound = result.read_bytes()
    result.write_bytes(damage)
    assert run_sweep(config, ["k=8"], tmp_path, quiet=True)[0]["M"] == rows[0]["M"]
    assert result.read_bytes() == sound


def test_a_sweep_with_other_settings_is_refused(config: HeadTrainingConfig, tmp_path: Path) -> None:
    run_sweep(config, ["k=8"], tmp_path, quiet=True)
    other = dataclasses.replace(config, iterations=4)
    with pytest.raises(ParameterError, match="another configuration: iterations is 3 there, 4"):
        run_sweep(other, ["k=8"], tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("sweeps", "words"),
    [
        (["k=8,12"], ["prototypes K", "unique prototypes M", "M = K"]),
        (["weight=0,0.1", "seed=0,1"], ["weight of the regulariser", "unique share M / K"]),
        (["weight=0.1,1", "k=8"], ["prototypes K", "0.1", "1.0"]),
    ],
)
def test_the_figure_is_drawn_over_k_or_else_over_the_weight(
    config: HeadTrainingConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sweeps: list[str],
    words: list[str],
) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # text stays text
    run_sweep(config, sweeps, tmp_path, quiet=True)
    drawn = (tmp_path / "sweep.svg").read_text()
    assert all(f">{word}<" in drawn for word in words)


def test_the_command_prints_before_and_after(config: HeadTrainingConfig, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(json.dumps(config.to_dict()))
    out = tmp_path / "run"
    arguments = ["--config", str(settings), "--out", str(out), "--k", "12"]
    result = CliRunner().invoke(
        train_command, arguments, obj=Session(quiet=True), catch_exceptions=False
    )
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split() == [
        "unique", "prototypes", "M", "(greedy)", "12", "12",
    ]  # fmt: skip
    assert json.loads((out / "audit.json").read_text())["config"]["k"] == 12  # flags win
    assert result.stderr == ""
    again = [*arguments, "--resume", "--format", "json"]
    result = CliRunner().invoke(
        train_command, again, obj=Session(quiet=True), catch_exceptions=False
    )
    assert json.loads(result.stdout)["after"]["unique"]["greedy"] == 12


def test_the_table_leaves_out_what_was_not_measured() -> None:
    numbers = {"unique": {"greedy": 3, "components": 2, "isolated": 1}, "probes": None}
    lines = comparison_table(numbers, numbers).splitlines()
    assert lines[0].split() == ["before", "after"]
    assert [line.split()[-1] for line in lines[1:]] == ["3", "2", "1"]
