"""Checkpoints that an index ties together: ``*.safetensors.index.json``, ``*.bin.index.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from collapse_audit.containers.json_text import parse_json
from collapse_audit.containers.limits import FILES
from collapse_audit.containers.pickled import key_name
from collapse_audit.containers.tensors import Checkpoint, StoredTensor
from collapse_audit.errors import CheckpointError
from collapse_audit.words import printable


def read_sharded(text: bytes, open_shard: Callable[[str], Checkpoint], name: str) -> Checkpoint:
    """Describe the tensors of an index, in its order; shards without any are not opened."""
    weight_map = _weight_map(text, name)
    shards: dict[str, Checkpoint] = {}
    tensors: list[StoredTensor] = []
    for key, file in weight_map.items():
        if file not in shards:
            shards[file] = open_shard(file)
        tensor = shards[file].tensors.get(key_name(key))
        if tensor is None:
            raise CheckpointError(
                f"{name}: {printable(file)} does not hold {printable(key)!r}, as the index says.",
                hint="The files are not of one checkpoint: compare the folder with its source.",
            )
        tensors.append(replace(tensor, storage=(file, tensor.storage)))
    size = sum(shard.size for shard in shards.values())
    found = Checkpoint.flat(name, "sharded", size, tensors)
    metadata = {key: text for shard in shards.values() for key, text in shard.metadata.items()}
    unread = dict.fromkeys(kind for shard in shards.values() for kind in shard.unread)
    return replace(found, metadata=metadata, unread=tuple(unread))


def _weight_map(text: bytes, name: str) -> dict[str, str]:
    try:
        weight_map = parse_json(text)["weight_map"]
        found = {str(key): str(file) for key, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(
            f"{name}: JSON, but not the index of a sharded checkpoint (it has no weight_map).",
            hint="Give the checkpoint itself; saved reports are what check and compare take.",
        ) from None
    if not found or len(set(found.values())) > FILES:
        raise CheckpointError(f"{name}: names no files, or over {FILES:,}.")
    check_names(found.values(), name)
    return found


def check_names(files: Iterable[str], name: str) -> None:
    """Refuse file names that lead out of the folder."""
    for file in files:
        absurd = not file.isprintable()  # also half a character, which no address can have
        if not file or absurd or {"/", "\\"}.intersection(file) or file in {".", ".."}:
            what = "a file that cannot be" if absurd else "a file of another folder"
            raise CheckpointError(
                f"{name}: names {what}, {printable(file)!r}; it was not opened.",
                hint="Nothing writes this: get the checkpoint from its source again.",
            )
