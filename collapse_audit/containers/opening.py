"""Which container a checkpoint is, from its bytes and never from its suffix, and its reader."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from collapse_audit.containers.byte_source import ByteSource, LocalFile
from collapse_audit.containers.dcp import METADATA, METADATA_CLASS, read_dcp
from collapse_audit.containers.foreign import describe_foreign
from collapse_audit.containers.json_text import parse_json
from collapse_audit.containers.limits import FILES, INDEX_BYTES
from collapse_audit.containers.numpy_files import read_npy, read_npz
from collapse_audit.containers.safetensors_files import read_safetensors, read_safetensors_pieces
from collapse_audit.containers.sharded import read_sharded
from collapse_audit.containers.tensors import Checkpoint
from collapse_audit.containers.torch_legacy import is_legacy, read_torch_legacy
from collapse_audit.containers.torch_zip import read_torch_zip
from collapse_audit.containers.zip_archive import ZipArchive
from collapse_audit.errors import CheckpointError, SourceError
from collapse_audit.words import printable

_HEAD_BYTES = 512
_SHOWN = 3
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# the folders of sparse autoencoders: their weights, and the configuration beside them if any
_AUTOENCODERS: Mapping[str, tuple[str, ...]] = {
    "sae_weights.safetensors": ("cfg.json", "config.json"),  # SAELens, Llama Scope R1
    "sae.safetensors": ("cfg.json",),  # sparsify
    "ae.pt": ("config.json",),  # dictionary_learning
    "checkpoints/final.safetensors": ("hyperparams.json",),  # Llama Scope
    "params.npz": (),  # Gemma Scope
}
Sibling = Callable[[str], ByteSource]


def read_checkpoint(
    source: ByteSource, name: str, *, file: str = "", sibling: Sibling | None = None
) -> Checkpoint:
    """Describe the tensors of a checkpoint; each is read when it is asked for."""
    # The source is a file of torch.save (zip or legacy), safetensors, ``.npy`` or ``.npz``, the
    # index of a sharded checkpoint, or the ``.metadata`` of a distributed one; file is its name,
    # and sibling opens others of its folder: without it, checkpoints in several files are refused.
    # A CheckpointError if it is damaged or none; an UnsafePickleError if its pickle names something
    # that only an attack needs.
    if file.endswith(".distcp"):
        raise CheckpointError(
            f"{name}: one file of a distributed checkpoint, which only its {METADATA} explains.",
            hint="Give the folder that holds it.",
        )
    size = source.size
    head = source.read(0, min(_HEAD_BYTES, size))
    if head.startswith(b"PK\x03\x04"):
        return _read_zip(ZipArchive(source, name), size)
    if is_legacy(head):
        return read_torch_legacy(source, name)
    if head.startswith(b"\x93NUMPY"):
        return read_npy(source, name)
    if head[:1] == b"\x80" and METADATA_CLASS in head:
        return read_dcp(source, _needed(sibling, name), name)
    # eight bytes of header length, then JSON; a lying length is the reader's to report
    is_safetensors = head[8:9] == b"{"
    is_json = head.lstrip()[:1] == b"{" and size <= INDEX_BYTES
    if is_json and not (is_safetensors and head[4:8] == bytes(4)):  # a length may look like JSON
        open_file = _needed(sibling, name)
        return read_sharded(
            source.read(0, size),
            lambda shard: read_checkpoint(open_file(shard), f"{name}: {printable(shard)}"),
            name,
        )
    if is_safetensors:
        return read_safetensors(source, name)
    what, hint = describe_foreign(head, size, file)
    raise CheckpointError(f"{name}: the file is {what}.", hint=hint)


def read_path(path: Path, name: str) -> Checkpoint:
    """The same for a file of this machine, or for a folder that is a checkpoint."""
    # one that is none is a SourceError, whose hint names those inside

    def sibling(file: str) -> LocalFile:
        return LocalFile((path if path.is_dir() else path.parent) / file)

    if not path.is_dir():
        return read_checkpoint(LocalFile(path), name, file=path.name, sibling=sibling)
    files = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    for chosen in _indices(files):
        return read_checkpoint(sibling(chosen), name, file=chosen, sibling=sibling)
    if autoencoder := _autoencoder(path, files):
        weights, configuration = autoencoder
        if configuration is None:
            raise SourceError(
                f"{name}: the folder of a sparse autoencoder without its configuration "
                f"({' or '.join(_AUTOENCODERS[weights])}).",
                hint="Get it from where the weights are from, or give the weights alone: "
                f"{printable(path / weights)}.",
            )
        found = read_checkpoint(sibling(weights), name, file=weights, sibling=sibling)
        options = _configuration(sibling(configuration), name) if configuration else {}
        return replace(found, options=options)
    shards = [file for file in files if file.endswith(".safetensors")]
    if shards and len(shards) <= FILES:
        sources: Mapping[str, ByteSource] = {file: sibling(file) for file in shards}
        if len(shards) == 1 or all("-of-" in file for file in shards):
            return read_safetensors_pieces(sources, name)
    raise SourceError(
        f"{name}: is a folder, and not a checkpoint that is one.", hint=_inside(path, files)
    )


def _autoencoder(folder: Path, files: Sequence[str]) -> tuple[str, str | None] | None:
    """The weights and the configuration in the folder of a sparse autoencoder, if it is one."""
    for weights, configurations in _AUTOENCODERS.items():
        beside = next((file for file in configurations if file in files), None)
        if (folder / weights).is_file() and (beside or "/" not in weights):
            return weights, beside if configurations else ""
    return None


def _configuration(source: ByteSource, name: str) -> dict[str, Any]:
    found = None
    with suppress(ValueError):
        found = parse_json(source.read(0, min(source.size, INDEX_BYTES)))
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{name}: its configuration is not JSON.",
            hint="Get it again from where the weights are from.",
        )
    return found


def is_checkpoint_folder(folder: Path) -> bool:
    """Whether a folder is one checkpoint in pieces, by the names of its files."""
    files = [entry.name for entry in folder.iterdir()]
    shards = any(file.endswith(".safetensors") and "-of-" in file for file in files)
    return shards or bool(_indices(files)) or _autoencoder(folder, files) is not None


def _indices(files: list[str]) -> list[str]:
    """The files that stand for the whole folder, the best first."""
    indices = [file for file in files if file.endswith(".index.json")]
    indices.sort(key=lambda file: (not file.endswith(".safetensors.index.json"), file))
    # a run of Hugging Face's Trainer has optimizer.pt, rng_state.pth and more beside its weights
    return [file for file in (METADATA, *indices, *_WEIGHTS) if file in files]


def _inside(folder: Path, files: list[str]) -> str:
    """What of a folder can be given instead."""
    if {"_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt"} & set(files):
        return "Orbax (JAX) wrote it: load it there and save the prototypes with numpy.savez."
    inner = []
    for entry in folder.iterdir():
        held = [file.name for file in entry.glob("*")]
        weights = any(name.endswith(".safetensors") for name in held)
        if weights or _indices(held) or _autoencoder(entry, held):
            inner.append(entry.name)
    inner.sort(key=lambda name: (int((re.search(r"\d+$", name) or ("-1",))[0]), name))
    if inner:
        shown = ", ".join(printable(folder / name) for name in inner[-_SHOWN:])
        more = f" ({len(inner)} in all)" if len(inner) > _SHOWN else ""
        return f"Give one of the checkpoints inside: {shown}{more}."
    if "zero_to_fp32.py" in files or any("mp_rank_" in f or "zero_pp_rank_" in f for f in files):
        return "DeepSpeed wrote it: its zero_to_fp32.py makes one file of it, which can be given."
    suffixes = (".pth", ".pt", ".ckpt", ".bin", ".tar", ".npz", ".npy", ".safetensors")
    likely = [file for file in files if file.endswith(suffixes)]
    if likely:
        return f"Give one file inside it, such as {printable(folder / likely[-1])}."
    return "Give one file inside it."


def _needed(sibling: Sibling | None, name: str) -> Sibling:
    if sibling is None:
        raise CheckpointError(
            f"{name}: a checkpoint in several files, and only this one can be opened here.",
            hint="Give its folder.",
        )
    return sibling


def _read_zip(archive: ZipArchive, size: int) -> Checkpoint:
    names = list(archive.members)
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return read_torch_zip(archive, size)
    if names and all(name.endswith(".npy") for name in names):
        return read_npz(archive, size)
    for sign, what in ((".weights.h5", "a Keras archive"), ("archive_format", "of torch.export")):
        if any(name.endswith(sign) for name in names):
            raise CheckpointError(
                f"{archive.name}: the file is {what}, which is not read.",
                hint="Load it there and save the prototypes (K x D) with numpy.savez.",
            )
    raise CheckpointError(
        f"{archive.name}: a zip archive, but neither torch's (no data.pkl) nor numpy's (no .npy "
        "members).",
        hint="If the checkpoint was zipped, unpack it first.",
    )
