"""Which container a file is, and what files that are none are called."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.distributed import checkpoint as dcp

from collapse_audit.containers.byte_source import LocalFile
from collapse_audit.containers.opening import read_path
from collapse_audit.errors import CheckpointError, SourceError
from collapse_audit.sources import load_prototypes, resolve_source
from tests.small_checkpoints import GOOD_FILES, WEIGHT, D, K, head, read_bytes, save_torch

CONTAINERS = {
    "zip": "zip", "deflated zip": "zip", "legacy": "legacy", "safetensors": "safetensors",
    "npy": "npy", "npz": "npz", "packed": "npz",
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npy", ""])
@pytest.mark.parametrize("name", GOOD_FILES)
def test_the_bytes_tell_the_container_and_the_suffix_does_not(
    name: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(GOOD_FILES[name])
    assert read_path(path, "file").container == CONTAINERS[name]
    np.testing.assert_array_equal(load_prototypes(path).rows, WEIGHT.numpy())


FOREIGN = {
    "": (b"", "empty"),
    "x": (b"<!DOCTYPE html><html>", "web page"),
    "y": (b"\n <HTML>", "web page"),
    "z": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
    "packed": (b"\x1f\x8b\x08\x00data", "gzip"),
    "packed.zst": (b"\x28\xb5\x2f\xfd" + bytes(20), "compressed"),
    "cut": (b"\x80\x02\x8a\x0a\x6c", "truncated after 5 bytes"),
    "one.pkl": (pickle.dumps({"a": 1}), "plain Python pickle, which is never executed"),
    "swav.pdparams": (pickle.dumps({"a": 1}), "Paddle"),
    "text": (b"hello, world", "not a checkpoint format"),
    "noise": (bytes(range(100, 200)) * 9, "not a checkpoint format"),
    "long": (b"\xff" * 8 + b"{}", "declares a header of 18,446,744,073,709,551,615 bytes"),
    "none": (struct.pack("<Q", 2) + b"{}", "no prototypes"),
    "bad": (struct.pack("<Q", 5) + b"{[[[]", "header cannot be read"),
    "model.onnx": (b"\x08\x08\x12\x07pytorch", "ONNX"),
    "model.gguf": (b"GGUF\x03" + bytes(30), "GGUF"),
    "model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(30), "HDF5 file, as Keras"),
    "checkpoint_9": (b"\x82\xa4step\x07\xa6params\x80", "msgpack file, as Flax"),
    "model.ckpt-9.index": (b"\0\0\4" + bytes(40), "TensorFlow"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_named_in_one_line_that_says_what_to_do(name: str, tmp_path: Path) -> None:
    content, message = FOREIGN[name]
    path = tmp_path / (name or "download.pth")
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_prototypes(path)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_real_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    (tmp_path / "x").write_text("x")
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "x", arcname="x")
    with pytest.raises(CheckpointError, match="tar archive"):
        read_path(path, "x")


def test_a_script_of_torch_is_read_with_a_note(tmp_path: Path) -> None:
    layer = torch.nn.Linear(D, K, bias=False)
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(torch.nn.ModuleDict({"prototypes": layer})["prototypes"]).save(
            tmp_path / "head.pt"
        )
    checkpoint = read_path(tmp_path / "head.pt", "head.pt")
    assert "TorchScript" in checkpoint.notes[0]
    np.testing.assert_array_equal(
        checkpoint.tensors["weight"].read(), layer.weight.detach().numpy()
    )


# --- folders -------------------------------------------------------------------------------------


def test_a_folder_with_one_safetensors_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"prototypes": WEIGHT}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(load_prototypes(tmp_path).rows, WEIGHT.numpy())


@pytest.mark.parametrize("weights", ["safetensors", "bin", "safetensors shards", "bin shards"])
def test_a_folder_of_hugging_faces_trainer_is_its_weights(weights: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-100"
    folder.mkdir()
    for name in ("config.json", "trainer_state.json", "tokenizer.json"):
        (folder / name).write_text('{"model_type": "vit"}')
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"state": torch.randn(K, D)}, folder / name)
    save_file({"adapter": torch.randn(K, D)}, folder / "adapter_model.safetensors")
    state = {"prototypes.weight": WEIGHT, "backbone.norm.weight": torch.ones(D)}
    kind, _, shards = weights.partition(" ")
    stem = "model" if kind == "safetensors" else "pytorch_model"
    names = dict.fromkeys(state, f"{stem}.{kind}")
    if shards:
        names = {key: f"{stem}-{i:05}-of-00002.{kind}" for i, key in enumerate(state, 1)}
        index = {"metadata": {}, "weight_map": names}
        (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(index))
    for file in set(names.values()):
        part = {key: value for key, value in state.items() if names[key] == file}
        (save_file if kind == "safetensors" else torch.save)(part, folder / file)
    np.testing.assert_array_equal(load_prototypes(folder).rows, WEIGHT.numpy())


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), r"is a folder.*Give one file inside it\."),
        (("a.pth", "b.pth", "notes.txt"), r"such as .*b\.pth"),
        (("9/.metadata", "10/.metadata", "11/.metadata", "100/.metadata"),
         r"inside: .*10, .*11, .*100 \(4 in all\)"),
        (("checkpoint-900/model.safetensors", "checkpoint-1000/pytorch_model.bin", "runs/log"),
         r"Give one of the checkpoints inside: .*checkpoint-900, .*checkpoint-1000\."),
        (("step/model.safetensors",), "Give one of the checkpoints inside: .*step"),
        (("zero_to_fp32.py", "latest"), r"DeepSpeed.*zero_to_fp32\.py"),
        (("zero_pp_rank_0_mp_rank_00_model_states.pt",), r"DeepSpeed.*zero_to_fp32\.py"),
        (("_CHECKPOINT_METADATA", "manifest.ocdbt"), "Orbax"),
        (("a.safetensors", "b.safetensors"), r"such as .*b\.safetensors"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_checkpoint_names_what_is_in_it(
    files: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(SourceError, match=message):
        read_path(tmp_path, "run")


# --- files that fail -----------------------------------------------------------------------------


def test_a_file_that_may_not_be_opened_is_a_source_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret.pth"
    save_torch(path, {"teacher": head()})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may open everything, so chmod is no test
    with pytest.raises(SourceError, match=r"cannot be opened \(Permission denied\)\. Check"):
        read_path(path, "secret.pth")


def test_a_file_that_became_shorter_since_is_a_source_error(tmp_path: Path) -> None:
    path = tmp_path / "growing.pth"
    save_torch(path, {"teacher": head()})
    checkpoint = read_path(path, "growing.pth")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SourceError, match=r"changed while it was read\. Does another"):
        checkpoint.tensors["teacher/head.last_layer.weight_v"].read()


def test_a_file_that_is_gone_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is missing"):
        LocalFile(tmp_path / "gone")


# --- what reading costs --------------------------------------------------------------------------


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_container_needs_torch(tmp_path: Path) -> None:
    for name, content in GOOD_FILES.items():
        (tmp_path / name).write_bytes(content)
    parts = ({"head.last_layer.weight_v": WEIGHT}, {"head.last_layer.weight_g": torch.ones(K, 1)})
    (tmp_path / "sharded").mkdir()
    where = {}
    for i, part in enumerate(parts):
        save_file(part, tmp_path / f"sharded/{i}.safetensors")
        where |= dict.fromkeys(part, f"{i}.safetensors")
    (tmp_path / "sharded/a.index.json").write_text(json.dumps({"weight_map": where}))
    with warnings.catch_warnings(action="ignore"):
        dcp.save(head(), checkpoint_id=tmp_path / "dcp", no_dist=True)
    run(
        "import sys; from pathlib import Path\n"
        "from collapse_audit.sources import describe_source, load_prototypes, resolve_source\n"
        f"paths = list(Path({str(tmp_path)!r}).iterdir())\n"
        f"assert len(paths) == {len(GOOD_FILES) + 2}\n"
        "for path in paths:\n"
        "    assert len(describe_source(resolve_source(path))['heads']) == 1\n"
        f"    assert load_prototypes(path).k == {K}\n"
        "heavy = {'torch', 'sklearn', 'pandas', 'matplotlib', 'timm', 'scipy', 'safetensors'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )


@pytest.mark.slow
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])
def test_a_large_file_is_read_without_its_backbone(is_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "large.pth"
    backbone = {f"backbone.{i}.weight": torch.ones(2500, 10_000) for i in range(3)}
    save_torch(path, {"teacher": backbone | head()}, is_zip=is_zip)
    assert path.stat().st_size > 300e6
    small = tmp_path / "small.pth"
    save_torch(small, {"teacher": head()})
    out = run(
        "import resource; from collapse_audit.sources import load_prototypes, resolve_source\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"load_prototypes({str(small)!r}); before = peak()\n"
        f"assert resolve_source({str(path)!r}).checkpoint.size > 3e8\n"
        f"assert load_prototypes({str(path)!r}).k == {K}\n"
        "print((peak() - before) / 1024)"
    )
    assert float(out) < 20


def test_looking_at_a_file_reads_no_values(tmp_path: Path) -> None:
    path = tmp_path / "nan.pth"
    save_torch(path, {"teacher": head(torch.full((K, D), float("nan")))})
    assert resolve_source(path).heads[0].k == K
    assert read_bytes(path.read_bytes()).container == "zip"
