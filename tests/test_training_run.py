"""Runs: resume after a kill, atomic files, bad folders, and what the numbers say."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors

from collapse_audit.cli.entry import main
from collapse_audit.errors import CheckpointError, ParameterError, SourceError
from collapse_audit.training import run as run_module
from collapse_audit.training.checkpointing import (
    load_state,
    save_state,
)
from collapse_audit.training.config import OBJECTIVES, REGULARISERS, HeadTrainingConfig
from collapse_audit.training.data import load_data
from collapse_audit.training.evaluate import probe
from collapse_audit.training.heads import make_network
from collapse_audit.training.loop import DivergedError, TrainingState, make_state, train
from collapse_audit.training.random_streams import generator
from collapse_audit.training.run import run_training

SMALL = {"k": 24, "d": 16, "hidden": 16, "batch_size": 8, "pool": 4, "warmup": 5}


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """A file of two planted classes, with a test split."""
    draw = np.random.default_rng(0)
    labels = np.arange(60) % 2
    rows = draw.normal(size=(60, 6)).astype(np.float32) + 3 * labels[:, None].astype(np.float32)
    path = tmp_path / "features.npz"
    np.savez(path, features=rows[:40], labels=labels[:40],
             test_features=rows[40:], test_labels=labels[40:])  # fmt: skip
    return path


@pytest.fixture
def config(features: Path) -> HeadTrainingConfig:
    return HeadTrainingConfig(
        **SMALL, data=str(features), iterations=20, audit_every=5, save_every=5
    )


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "head.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    expected = weights(second)
    assert weights(first).keys() == expected.keys()
    for name, value in weights(first).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name, strict=True)


# Children are forked from a process that has trained once: its imports take seconds.
DRIVER = """
import gc, os, sys
from dataclasses import replace
from pathlib import Path
from collapse_audit.training import loop
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.run import run_training
from tests.kills import Operations, kill_now

config, folder = HeadTrainingConfig.from_file(Path(sys.argv[1])), Path(sys.argv[2])
run_training(replace(config, iterations=2), folder.with_name("warm"), quiet=True)
step = loop._step
gc.freeze()  # else each child looks through all of torch for garbage

def train(unit, number):
    steps = 0

    def counted(*arguments):
        nonlocal steps
        steps += 1
        result = step(*arguments)
        if unit == "step" and steps == number:
            kill_now()
        return result

    loop._step = counted
    Operations(folder, number if unit == "operation" else None)
    run_training(config, folder, resume=True, quiet=True)

for line in sys.stdin:
    if not os.fork():
        train(line.split()[0], int(line.split()[1]))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
    print(*sorted(path.name for path in folder.iterdir()), flush=True)
"""


def test_labels_that_do_not_fit_are_refused_and_one_class_is_not_probed(
    config: HeadTrainingConfig,
) -> None:
    held = dict(np.load(config.data))
    wrong = {"labels": held["labels"][:20], "test_labels": held["test_labels"] / 2}
    for name, labels in wrong.items():
        np.savez(config.data, **(held | {name: labels}))
        with pytest.raises(SourceError, match=rf"{name} must be \d+ integers, got"):
            load_data(config)
    config = replace(config, batch_size=3)
    three = {name: held[name][:3] for name in ("features", "labels")}
    network = make_network(config, held["features"].shape[1], images=False)
    np.savez(config.data, **(held | three))
    found = probe(network, load_data(config))  # fewer samples than neighbours
    assert found is not None
    assert 0 <= found.knn <= 1
    np.savez(config.data, **(held | three | {"labels": np.zeros(3, dtype=int)}))
    assert probe(network, load_data(config)) is None


@pytest.mark.slow
def test_a_run_killed_at_fifteen_points_ends_as_the_unbroken_one_and_leaves_nothing_else(
    config: HeadTrainingConfig, tmp_path: Path, repository: Path
) -> None:
    config = replace(config, iterations=120, save_every=3, audit_every=2, regulariser="koleo-both")
    np.savez(config.data, features=np.load(config.data)["features"])  # without labels: no probes
    settings = tmp_path / "settings.yaml"
    settings.write_text(json.dumps(config.to_dict()))  # JSON is YAML
    unbroken = run_training(config, tmp_path / "unbroken", quiet=True)
    folder = tmp_path / "killed"
    draw = random.Random(0)
    kills = [f"operation {number}" for number in draw.sample(range(2, 40), 11)]
    kills += [f"step {draw.randrange(1, 9)}" for _ in range(4)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, settings, folder],
        input="\n".join([*kills, "whole 0"]),
        check=True,
        capture_output=True,
        text=True,
        cwd=repository,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # a fork of a process with threads may hang
    )
    exits, files = done.stdout.splitlines()[::2], done.stdout.splitlines()[1::2]
    assert [int(line) for line in exits] == [-signal.SIGKILL] * 15 + [0]
    assert any(".tmp" in line for line in files), "some kill met a file half-written"
    names = ["audit.json", "config.yaml", "head.safetensors", "log.jsonl", "state.pt"]
    assert files[-1].split() == names
    assert_same_weights(folder, unbroken.folder)
    for name in names:
        assert (folder / name).read_bytes() == (unbroken.folder / name).read_bytes(), name


def test_heads_are_kept_on_the_way_and_the_last_one_is_the_head(
    config: HeadTrainingConfig, tmp_path: Path
) -> None:
    run_training(replace(config, keep_every=10), tmp_path / "run", quiet=True)
    kept = sorted((tmp_path / "run").glob("checkpoint_*"))
    assert [path.name for path in kept] == [
        f"checkpoint_step{step:07d}.safetensors" for step in (0, 10, 20)
    ]
    head = tmp_path / "run" / "head.safetensors"
    assert [path.read_bytes() == head.read_bytes() for path in kept] == [False, False, True]
    run_training(config, tmp_path / "plain", quiet=True)
    assert_same_weights(tmp_path / "run", tmp_path / "plain")


@pytest.mark.parametrize("regulariser", REGULARISERS)
@pytest.mark.parametrize("stop", [1, 6, 13])
def test_a_state_saved_at_any_step_continues_to_the_same_weights(
    config: HeadTrainingConfig, tmp_path: Path, regulariser: str, stop: int
) -> None:
    config = replace(config, regulariser=regulariser, save_every=1)
    data = load_data(config)
    path = tmp_path / "state.pt"

    def save_once(state: object) -> None:
        if state.iteration == stop:  # type: ignore[attr-defined]
            save_state(state, path)  # type: ignore[arg-type]

    unbroken = make_state(config, data)
    train(unbroken, data, config, on_audit=lambda *_: {}, on_save=save_once, quiet=True)
    torch.manual_seed(99)  # the global generator is no part of a run
    resumed = make_state(config, data)
    load_state(resumed, path)
    train(resumed, data, config, on_audit=lambda *_: {}, on_save=lambda _: None, quiet=True)
    for name, value in unbroken.teacher.state_dict().items():
        torch.testing.assert_close(resumed.teacher.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_and_writes_a_dino_compatible_head(
    config: HeadTrainingConfig, tmp_path: Path, objective: str
) -> None:
    result = run_training(replace(config, objective=objective), tmp_path / "run", quiet=True)
    tensors = weights(result.folder)
    assert tensors["teacher.head.last_layer.weight_v"].shape == (24, 16)
    assert tensors["student.head.last_layer.weight_g"].shape == (24, 1)
    assert ("dino_loss.center" in tensors) == (objective in ("dino", "probability-centring"))
    assert result.after["unique"]["greedy"] <= 24
    assert 0.9 <= result.after["probes"]["knn"] <= 1
    with safe_open(result.head, framework="pt") as file:
        provenance = file.metadata()
    assert json.loads(provenance["config"])["data"] == "features.npz"  # no path of this machine
    assert provenance["iteration"] == "20"
    lines = [json.loads(line) for line in (result.folder / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [5, 10, 15, 20]


@pytest.mark.parametrize("vmf", [False, True])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_mlcd_of_the_head_on_its_training_samples_is_that_of_its_audit(
    config: HeadTrainingConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    objective: str,
    vmf: bool,
) -> None:
    folder = tmp_path / "run"
    config = replace(config, objective=objective, vmf=vmf, iterations=60, lr=0.03)
    after = run_training(config, folder, quiet=True).after
    capsys.readouterr()
    command = ["mlcd", str(folder / "head.safetensors"), "--data", config.data, "--json"]
    assert main(command) == 0
    mlcd = json.loads(capsys.readouterr().out)["heads"][0]["mlcd"]

    assert mlcd["n"] == 40
    assert mlcd["temperature_source"] == "training options in head.safetensors"
    assert mlcd["vmf"] is vmf
    found = {
        "perplexity": mlcd["k"]["perplexity"],
        "unique_perplexity": mlcd["m"]["perplexity"],
        "mutual_information": mlcd["mutual_information"],
    }
    assert found == pytest.approx({name: after[name] for name in found}, rel=1e-5, abs=1e-5)
    audit = json.loads((folder / "audit.json").read_text())["after"]
    assert {name: audit[name] for name in found} == {name: after[name] for name in found}


def test_row_norms_train_with_the_vmf_normaliser_only(
    config: HeadTrainingConfig, tmp_path: Path
) -> None:
    plain = weights(run_training(config, tmp_path / "plain", quiet=True).folder)
    assert (plain["teacher.head.last_layer.weight_g"] == 1).all()
    vmf = weights(run_training(replace(config, vmf=True), tmp_path / "vmf", quiet=True).folder)
    assert (vmf["teacher.head.last_layer.weight_g"] != 1).all()


def test_the_backbone_is_left_alone_when_it_is_frozen(tmp_path: Path) -> None:
    config = HeadTrainingConfig(**SMALL, iterations=5, limit=40)
    first = run_training(config, tmp_path / "first", quiet=True)
    repair = replace(config, init=str(first.head), freeze_backbone=True, regulariser="koleo-proto")
    second = run_training(repair, tmp_path / "second", quiet=True)
    assert second.before["unique"] == first.after["unique"]
    before, after = weights(first.folder), weights(second.folder)
    for name in before:
        same = np.array_equiv(before[name], after[name])
        fixed = ".backbone." in name or name.endswith("weight_g")
        if name.startswith("teacher."):
            assert same == fixed, name


def test_a_collapsed_head_is_repaired(features: Path, tmp_path: Path) -> None:
    config = HeadTrainingConfig(
        **SMALL | {"k": 200}, data=str(features), iterations=150, freeze_backbone=True
    )
    data = load_data(config)
    collapsed = make_state(config, data)
    with torch.no_grad():
        collapsed.teacher.prototypes[100:] = collapsed.teacher.prototypes[:100]  # exact pairs
    head = tmp_path / "collapsed.safetensors"
    run_module.save_head(collapsed.teacher, head, provenance={})
    repair = replace(config, init=str(head), regulariser="koleo-proto")
    result = run_training(repair, tmp_path / "run", quiet=True)
    assert result.before["unique"]["greedy"] <= 100
    assert result.after["unique_fraction"] > 0.9


def test_the_seed_decides_the_weights(config: HeadTrainingConfig, tmp_path: Path) -> None:
    runs = [
        run_training(replace(config, seed=seed), tmp_path / name, quiet=True).folder
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert_same_weights(runs[0], runs[1])
    a, c = (weights(runs[i])["teacher.head.last_layer.weight_v"] for i in (0, 2))
    assert (a != c).any()


def test_streams_of_random_numbers_are_independent_of_each_other() -> None:
    draws = [
        torch.rand(4, generator=generator(*key)).tolist()
        for key in (("order", 0, 1), ("order", 0, 2), ("order", 1, 1), ("views", 0, 1))
    ]
    assert len({tuple(draw) for draw in draws}) == 4


def test_views_of_one_image_are_distinct_and_an_epoch_covers_all(tmp_path: Path) -> None:
    del tmp_path
    config = HeadTrainingConfig(**SMALL, limit=40)
    data = load_data(config)
    batches = [data.batch(config, step)[0] for step in range(5)]
    first = torch.cat([batch[0] for batch in batches])
    assert (torch.cdist(batches[0][0], batches[0][1]).diagonal() > 0).all()
    assert first.shape == (40, 64)
    owner = (data.views.flatten(0, 1)[:, None] == first[None]).all(-1).nonzero()[:, 0] // 4
    assert sorted(owner.tolist()) == list(range(40))


def test_a_diverging_run_keeps_the_last_good_state(
    config: HeadTrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = replace(config, iterations=20)
    original = run_module.load_data(clean)

    class Spoilt:
        def __getattr__(self, name: str) -> object:
            return getattr(original, name)

        def batch(self, config: HeadTrainingConfig, iteration: int) -> tuple[torch.Tensor]:
            (batch,) = original.batch(config, iteration)
            return (batch * (float("nan") if iteration == 12 else 1),)

    monkeypatch.setattr(run_module, "load_data", lambda _: Spoilt())
    result = run_training(clean, tmp_path / "run", quiet=True)
    assert "loss nan at step 12" in result.stopped
    assert "the head is that of step 10" in result.stopped
    assert all(np.isfinite(value).all() for value in weights(result.folder).values())
    assert json.loads((result.folder / "audit.json").read_text())["stopped"] == result.stopped


def test_divergence_is_raised_by_the_loop_before_the_step_is_taken(
    config: HeadTrainingConfig,
) -> None:
    data = load_data(config)
    state = make_state(config, data)
    with torch.no_grad():
        state.student.head.mlp[0].weight.fill_(float("nan"))
    before = state.teacher.prototypes.clone()
    with pytest.raises(DivergedError, match="loss nan at step 0"):
        train(state, data, config, on_audit=lambda *_: {}, on_save=lambda _: None, quiet=True)
    torch.testing.assert_close(state.teacher.prototypes, before, rtol=0, atol=0)


def test_folders_of_other_runs_are_left_alone(config: HeadTrainingConfig, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run_training(config, folder, quiet=True)
    head = (folder / "head.safetensors").read_bytes()
    with pytest.raises(ParameterError, match=r"already holds a run. Add `resume=True`"):
        run_training(config, folder, quiet=True)
    with pytest.raises(ParameterError, match="another configuration: k is 24 there, 25 here"):
        run_training(replace(config, k=25), folder, resume=True, quiet=True)
    np.savez(config.data, features=np.ones((40, 6), np.float32))
    with pytest.raises(ParameterError, match="the data are not those the run began with"):
        run_training(config, folder, resume=True, quiet=True)
    assert (folder / "head.safetensors").read_bytes() == head
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(ParameterError, match="not empty, and not a run folder"):
        run_training(config, tmp_path / "other", resume=True, quiet=True)


def test_equal_runs_give_files_with_equal_bytes(config: HeadTrainingConfig, tmp_path: Path) -> None:
    first, second = (run_training(config, tmp_path / name, quiet=True).folder for name in "ab")
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


def test_a_state_of_which_any_bit_flipped_is_refused(
    config: HeadTrainingConfig, tmp_path: Path
) -> None:
    state, path = make_state(config, load_data(config)), tmp_path / "state.pt"
    save_state(state, path)
    content, draw = path.read_bytes(), random.Random(0)
    assert zipfile.ZipFile(path).testzip() is None
    assert torch.load(path, weights_only=True)["iteration"] == 0  # a file of torch, as it was
    ends = [0, *range(len(content) - 36, len(content))]
    for place in [*ends, *(draw.randrange(len(content)) for _ in range(200))]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match="its checksum is not that of its content"):
            load_state(state, path)


def test_one_process_at_a_time_trains_in_a_folder(
    config: HeadTrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = run_training(config, tmp_path / "alone", quiet=True)
    folder, refusals = tmp_path / "run", []

    def save_and_try(state: TrainingState, path: Path) -> None:
        save_state(state, path)
        with pytest.raises(ParameterError, match="another process trains there") as caught:
            run_training(config, folder, resume=True, quiet=True)
        refusals.append(str(caught.value))

    monkeypatch.setattr(run_module, "save_state", save_and_try)
    run_training(config, folder, quiet=True)
    assert len(refusals) == 5  # at the start and at every fifth step
    assert_same_weights(folder, alone.folder)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "line",
    [
        b'{"iteration": 5, "note": "\xff"}',
        b"[" * 100_000,
        b'{"iteration": ' + b"1" * 5000 + b"}",
        b'{"iteration": 1' + b"0" * 400 + b"}",
        b'{"iteration": [5]}',
        b"\xff\xfe{\x00}\x00",
    ],
    ids=["not UTF-8", "deep", "5,000 digits", "400 digits", "a list", "UTF-16"],
)
def test_a_damaged_log_does_not_keep_a_run_from_going_on(
    config: HeadTrainingConfig, tmp_path: Path, line: bytes
) -> None:
    folder = run_training(config, tmp_path / "run", quiet=True).folder
    log = (folder / "log.jsonl").read_bytes()
    (folder / "log.jsonl").write_bytes(line + b"\n" + log)
    run_training(config, folder, resume=True, quiet=True)
    after = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert after[-4:] == log.decode().splitlines()
    assert all(isinstance(json.loads(each), dict) for each in after)


def test_a_folder_where_the_log_should_be_is_named(
    config: HeadTrainingConfig, tmp_path: Path
) -> None:
    folder = run_training(config, tmp_path / "run", quiet=True).folder
    (folder / "log.jsonl").unlink()
    (folder / "log.jsonl").mkdir()
    with pytest.raises(SourceError, match=r"log\.jsonl: it is no regular file"):
        run_training(config, folder, resume=True, quiet=True)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't "
                     "allocate memory: you tried to allocate 51539607528 bytes.\n"),
        RuntimeError("Storage size calculation overflowed with sizes=[4611686018427387904, 8]"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    ],
    ids=["Python", "processor", "too many to count", "card"],
)  # fmt: skip
def test_a_head_that_does_not_fit_is_an_error_of_its_settings(
    config: HeadTrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(run_module, "make_state", fail)
    with pytest.raises(ParameterError, match=r"too little memory.*Lower k, d, hidden") as caught:
        run_training(config, tmp_path / "run", quiet=True)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "run").exists()


def test_other_faults_of_torch_stay_what_they_are(
    config: HeadTrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(run_module, "make_state", fail)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run_training(config, tmp_path / "run", quiet=True)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_truncated_state_is_refused_and_left_as_it_is(
    config: HeadTrainingConfig, tmp_path: Path, keep: float
) -> None:
    folder = tmp_path / "run"
    run_training(config, folder, quiet=True)
    state = folder / "state.pt"
    content = state.read_bytes()[: int(keep * state.stat().st_size)]
    state.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a state to resume from") as caught:
        run_training(config, folder, resume=True, quiet=True)
    assert "\n" not in str(caught.value)
    assert state.read_bytes() == content


@pytest.mark.parametrize("name", ["state.pt", "log.jsonl", "config.yaml", "head.safetensors"])
def test_a_pipe_in_the_folder_of_a_run_is_refused_at_once(
    config: HeadTrainingConfig, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "run"
    run_training(replace(config, iterations=2), folder, quiet=True)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(SourceError, match=rf"{name}: it is no regular file\. Remove it") as caught:
        run_training(replace(config, iterations=2), folder, resume=True, quiet=True)
    assert "\n" not in str(caught.value)
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / "pipe")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="no regular file"):
        run_training(replace(config, iterations=2), folder, resume=True, quiet=True)
    assert not (folder / ".lock").exists()


def test_a_full_disk_is_one_line_and_leaves_the_older_state(
    config: HeadTrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.pt"
    path.write_text("old")
    state = make_state(config, load_data(config))
    real = Path.open

    def full(self: Path, *arguments: str) -> IO[bytes]:
        if self.name.endswith(".tmp"):
            return real(Path("/dev/full"), "wb")
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(SourceError, match=r"o space left.*\. Free space or choose") as caught:
            save_state(state, path)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"


def test_heads_are_readable_as_the_umask_allows(config: HeadTrainingConfig, tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        result = run_training(replace(config, iterations=2), tmp_path / "run", quiet=True)
    finally:
        os.umask(mask)
    for path in result.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o644, path.name
    assert load_tensors(result.head)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((40, 6), np.float32)}, r"no array 'features'; it holds x"),
        ({"features": np.ones(40, np.float32)}, r"features has shape \(40,\)"),
        ({"features": np.ones((40, 6), np.int64)}, "int64, not n x d floats"),
        ({"features": np.full((40, 6), np.nan, np.float32)}, "NaN or infinite values in 40 rows"),
        (
            {
                "features": np.ones((40, 6), np.float32),
                "test_features": np.ones((4, 5), np.float32),
            },
            "must have the same width",
        ),
    ],
)
def test_features_that_cannot_be_trained_on_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(SourceError, match=message):
        load_data(HeadTrainingConfig(**SMALL, data=str(path)))


def test_data_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="Did you mean digits"):
        load_data(HeadTrainingConfig(data="digit"))
    with pytest.raises(SourceError, match="no train-images-idx3-ubyte or train-images-idx3-ubyte"):
        load_data(HeadTrainingConfig(data="fashion-mnist", data_root=str(tmp_path)))
    with pytest.raises(ParameterError, match="10 training samples, but a batch holds 32"):
        load_data(HeadTrainingConfig(limit=10))
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("no.safetensors", "pipe.safetensors"):
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            run_training(
                HeadTrainingConfig(**SMALL, limit=40, init=str(tmp_path / name)), tmp_path / "run"
            )
    assert not (tmp_path / "run").exists()  # a refused run leaves the folder free


def test_a_head_of_other_sizes_is_refused_as_a_start(
    config: HeadTrainingConfig, tmp_path: Path
) -> None:
    first = run_training(replace(config, iterations=2), tmp_path / "first", quiet=True)
    other = replace(config, k=30, init=str(first.head))
    with pytest.raises(CheckpointError, match=r"weight_g is \(24, 1\) in the file and \(30, 1\)"):
        run_training(other, tmp_path / "second", quiet=True)


def test_idx_files_are_read_plain_and_gzipped(tmp_path: Path) -> None:
    import gzip

    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (50, 28, 28)).astype(np.uint8)
    labels = draw.integers(0, 10, 50).astype(np.uint8)
    head = b"\0\0\x08\x03" + np.array([50, 28, 28], ">i4").tobytes()
    tail = b"\0\0\x08\x01" + np.array([50], ">i4").tobytes()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(tail + labels.tobytes())
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(head + images.tobytes())
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(tail + labels.tobytes())
    config = HeadTrainingConfig(**SMALL, data="fashion-mnist", data_root=str(tmp_path), limit=40)
    data = load_data(config)
    assert data.train.shape == (40, 14 * 14)
    expected = images[3, 2:4, 4:6].mean() / 255  # pixel (1, 2) of the halved image
    assert data.train[3].view(14, 14)[1, 2].item() == pytest.approx(expected)
    np.testing.assert_array_equal(data.test_labels, labels.astype(np.int64), strict=True)
