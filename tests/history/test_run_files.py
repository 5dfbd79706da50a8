"""Which files of a run are its checkpoints, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint import save

from collapse_audit.errors import CollapseAuditWarning, SourceError
from collapse_audit.history import find_checkpoints, newest_checkpoint
from tests.history.conftest import KEY, rows_with, write

LAYOUTS = {
    "DINO": (
        ["checkpoint0009.pth", "checkpoint0010.pth", "checkpoint0100.pth", "checkpoint.pth"],
        ["log.txt", "queue.pth"],
    ),
    "SwAV": (["checkpoints/ckp-9.pth", "checkpoints/ckp-10.pth", "checkpoint.pth.tar"], []),
    "DINOv2": (
        [f"eval/training_{n}/teacher_checkpoint.pth" for n in (1249, 2499, 12499)],
        ["model_0012499.rank_0.pth", "model_0012499.rank_1.pth"],
    ),
    "Lightning": (
        [f"checkpoints/epoch={n}-step={s}.ckpt" for n, s in ((0, 90), (9, 900), (10, 990))]
        + ["checkpoints/last.ckpt"],
        ["hparams.yaml"],
    ),
    "MSN": (["msn-ep40.pth.tar", "msn-ep100.pth.tar", "msn-latest.pth.tar"], []),
    "bundled": (
        [
            "checkpoint_step0000250.safetensors",
            "checkpoint_step0001000.safetensors",
            "head.safetensors",
        ],
        ["state.pt", ".checkpoint_step0000500.safetensors.0a.tmp", "log.jsonl"],
    ),
    "Hugging Face": (
        ["checkpoint-500/", "checkpoint-1000/"],
        ["tmp-checkpoint-1500/model.safetensors", "training_args.bin"],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_checkpoints_are_found_in_the_order_of_step_or_epoch(tmp_path: Path, layout: str) -> None:
    expected, others = LAYOUTS[layout]
    for name in [*reversed(expected), *others]:
        path = tmp_path / name / "model.safetensors" if name.endswith("/") else tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = find_checkpoints(tmp_path)
    assert [file.name for file in found] == [name.rstrip("/") for name in expected]
    assert Path(newest_checkpoint(tmp_path)).name == Path(expected[-1]).name


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_folders_of_distributed_checkpoints_are_one_checkpoint_each(tmp_path: Path) -> None:
    for step in (99, 1000):
        save({KEY: torch.from_numpy(rows_with(60))}, checkpoint_id=tmp_path / "ckpt" / str(step))
    unfinished = tmp_path / "ckpt" / "2000"
    unfinished.mkdir()
    (unfinished / "__0_0.distcp").touch()  # .metadata comes last
    found = find_checkpoints(tmp_path)
    assert [(file.name, file.number) for file in found] == [("ckpt/99", 99), ("ckpt/1000", 1000)]


@pytest.mark.parametrize(
    ("name", "number", "unit"),
    [
        ("dino_vitb16_checkpoint0040.pth", 40, "checkpoint"),
        ("epoch=3-step=400.ckpt", 400, "step"),
        ("epoch=3-val_loss=0.12.ckpt", 3, "epoch"),
        ("vitb16_epoch_7_k65536.pth", 7, "epoch"),
        ("global_step1200/model.pt", 1200, "step"),
        ("deep12_300.pt", 300, "checkpoint"),
    ],
)
def test_the_number_is_what_the_name_says(
    tmp_path: Path, name: str, number: int, unit: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    (file,) = find_checkpoints(tmp_path)
    assert (file.number, file.unit) == (number, unit)


def test_globs_and_files_are_taken_as_they_are_named(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"run7/epoch{n}.safetensors", 60) for n in (2, 10, 1)]
    (tmp_path / "run7" / "notes.txt").touch()
    names = ["epoch1.safetensors", "epoch2.safetensors", "epoch10.safetensors"]
    for sources in (str(tmp_path / "run7/*"), [str(path) for path in paths]):
        assert [file.name for file in find_checkpoints(sources)] == names
    assert newest_checkpoint(str(tmp_path / "run?/*.safetensors")) == paths[1]
    assert [file.number for file in find_checkpoints(paths[0])] == [2]
    assert newest_checkpoint("demo") == "demo"
    assert newest_checkpoint("hf://org/repo/*.pth") == "hf://org/repo/*.pth"


def test_of_several_sets_of_names_the_largest_is_taken_and_the_others_are_told(
    tmp_path: Path,
) -> None:
    for n in range(3):
        write(tmp_path / f"ckpt_{n}.safetensors", 60)
    write(tmp_path / "best_1.safetensors", 60)
    with pytest.warns(CollapseAuditWarning, match=r"took the 3 .* also has best_#.safetensors \(1"):
        assert len(find_checkpoints(tmp_path)) == 3


def test_a_checkpoint_in_one_folder_is_a_run_of_one(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", 60)
    (file,) = find_checkpoints(tmp_path)
    assert file.path == tmp_path
    assert newest_checkpoint(tmp_path) == tmp_path
    write(tmp_path / "checkpoint-7" / "model.safetensors", 60)
    assert [f.path.name for f in find_checkpoints(tmp_path)] == ["checkpoint-7", tmp_path.name]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("empty", "empty: holds no checkpoint. Names such as"),
        ("gone", "gone: no such file"),
        ("*.pth", r"\*.pth: matches no checkpoint"),
        ([], "a run is a folder, a glob or files, got list"),
        ([3], "a run is a folder, a glob or files, got int"),
    ],
)
def test_what_is_no_run_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=words):
        find_checkpoints(source)
