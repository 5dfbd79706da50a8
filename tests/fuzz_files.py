"""Small sound checkpoints of every container, and changes of their bytes."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import pickletools
import random
import re
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Files = dict[str, bytes]
MARKER = "collapse_audit_fuzz_ran_code"


class Malicious:
    """An object whose pickle runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {Path(tempfile.gettempdir()) / MARKER}",)


def saved(value: Any, **options: Any) -> bytes:
    """What torch.save writes."""
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def pieces_of_a_run(
    pieces: Iterable[tuple[tuple[int, ...], Any]],
    shape: tuple[int, ...],
    *,
    key: str = "head.last_layer.weight",
    files: Iterable[str] = (),
) -> Files:
    """A folder of torch.distributed.checkpoint with one tensor, of pieces that start where said."""
    import torch
    from torch.distributed.checkpoint import metadata as described
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    chunks, stored, content = [], {}, {}
    names = list(files)
    for number, (start, piece) in enumerate(pieces):
        file = names[number] if names else f"__{number}_0.distcp"
        data = saved(piece)
        begin = len(content.get(file, b""))
        content[file] = content.get(file, b"") + data
        at = torch.Size(start)
        chunks.append(described.ChunkStorageMetadata(at, piece.shape))
        stored[described.MetadataIndex(key, at, number)] = _StorageInfo(file, begin, len(data))
    properties = described.TensorProperties(dtype=torch.float32)
    tensor = described.TensorStorageMetadata(properties, torch.Size(shape), chunks)
    whole = described.Metadata({key: tensor}, {key: ("model", key)}, stored)
    return {".metadata": pickle.dumps(whole), **content}


def checkpoints() -> dict[str, tuple[str, Files]]:
    """Sound files by name: the one to open (nothing for the folder), and all of them."""
    import numpy as np
    import safetensors.torch
    import torch
    from torch.distributed import checkpoint as distributed

    weight = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    tree = {
        "teacher": {"head.last_layer.weight_v": weight, "head.last_layer.weight_g": weight[:, :1]},
        "optimizer": {"state": {0: {"step": 3, "exp_avg": weight.t()}}, "param_groups": [{}]},
        "epoch": 3,
    }
    more = tree | {"args": argparse.Namespace(lr=np.float64(0.1), arch="vit")}
    npy, npz, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, weight.numpy())
    np.savez(npz, a=weight.numpy(), b=np.arange(5))
    np.savez_compressed(packed, a=weight.numpy())
    parts = {"model-00001-of-00002.safetensors": {"a": weight, "b": weight.half()},
             "model-00002-of-00002.safetensors": {"c": weight.bfloat16()}}  # fmt: skip
    where = {key: file for file, part in parts.items() for key in part}
    shards = {file: safetensors.torch.save(part) for file, part in parts.items()}
    index = {"model.safetensors.index.json": json.dumps({"weight_map": where}).encode()}
    info = {"w": {"saved_offsets": [6, 0]}}
    halves = {
        "shard-00001-model-00001-of-00001.safetensors": safetensors.torch.save(
            {"w": weight[:6].clone()}
        ),
        "shard-00002-model-00001-of-00001.safetensors": safetensors.torch.save(
            {"w": weight[6:].clone()}, {"DCP_SHARDING_INFO": json.dumps(info)}
        ),
    }
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        state = {"model": {"a": weight, "b": weight.bfloat16(), "n": torch.arange(5)}, "step": 3}
        distributed.save(state, checkpoint_id=folder, no_dist=True)
        by_torch = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    run = pieces_of_a_run([((0, 0), weight[:5].clone()), ((5, 0), weight[5:].clone())], (12, 8))
    return {
        "zip": ("a.pth", {"a.pth": saved(tree)}),
        "zip of protocol 4": ("a.pth", {"a.pth": saved(tree, pickle_protocol=4)}),
        "zip with objects": ("a.pth", {"a.pth": saved(more)}),
        "legacy": ("a.pth", {"a.pth": saved(tree, _use_new_zipfile_serialization=False)}),
        "legacy with objects": (
            "a.pth",
            {"a.pth": saved(more, _use_new_zipfile_serialization=False)},
        ),
        "malicious": ("a.pth", {"a.pth": saved({"a": weight, "b": Malicious()})}),
        "safetensors": (
            "a.st",
            {"a.st": safetensors.torch.save({"w": weight, "n": weight[0].clone()})},
        ),
        "npy": ("a.npy", {"a.npy": npy.getvalue()}),
        "npz": ("a.npz", {"a.npz": npz.getvalue()}),
        "packed npz": ("a.npz", {"a.npz": packed.getvalue()}),
        "sharded": ("model.safetensors.index.json", index | shards),
        "safetensors of a run": ("", halves),
        "distributed": (".metadata", run),
        "distributed by torch": (".metadata", by_torch),
    }


def mutate(data: bytes, draw: random.Random) -> bytes:
    """One to four changes of a kind that finds different bugs each."""
    result = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(result) or 1)
        kind = draw.randrange(7)
        if kind == 0:
            result[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 1:  # numbers at their limits, where sizes and offsets stand
            result[at : at + 4] = draw.choice((b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f"))
        elif kind == 2:
            del result[at:]
        elif kind == 3:
            del result[at : at + draw.randrange(1, 32)]
        elif kind == 4:
            other = draw.randrange(len(result) or 1)
            result[at:at] = result[other : other + draw.randrange(1, 64)]
        elif kind == 5:
            result[at : at + 1] = draw.choice(b"().0122KMNRQb}]edustcq\x85\x86\x93").to_bytes()
        else:
            result[at : at + 8] = draw.randbytes(8)
    return bytes(result)


def mutated(files: Files, draw: random.Random) -> Files:
    """Files of which one is changed; inside a zip archive often its index, or its directory."""
    name = draw.choice([*files, next(iter(files))])
    data, way = files[name], draw.random()
    if len(files) > 1 and way < 0.1:  # two of them exchanged
        other = draw.choice(list(files))
        return files | {name: files[other], other: files[name]}
    if name == ".metadata" and way < 0.6:
        return files | {name: _with_other_numbers(data, draw)}
    if data.startswith(b"PK") and way < 0.4:
        data = _with_mutated_index(data, draw)
    elif data.startswith(b"PK") and way < 0.6:
        start = draw.choice([found.start() for found in re.finditer(b"PK\x01\x02", data)])
        data = data[:start] + mutate(data[start:], draw)
    elif way < 0.8 and data[8:9] == b"{":
        length = struct.unpack("<Q", data[:8])[0]
        header = mutate(data[8 : 8 + length], draw)
        data = struct.pack("<Q", len(header)) + header + data[8 + length :]
    else:
        data = mutate(data, draw)
    return files | {name: data}


def _with_other_numbers(data: bytes, draw: random.Random) -> bytes:
    """A pickle in which one or two sizes or offsets are others, often those of another thing."""
    result = bytearray(data)
    found = [
        (operation.arg.n, place + 1)
        for operation, _, place in pickletools.genops(data)
        if operation.name in {"BININT", "BININT1", "BININT2"}
    ]
    for _ in range(draw.choice((1, 1, 2))):
        width, at = draw.choice(found)
        held = int.from_bytes(data[at : at + width], "little")
        others = [int.from_bytes(data[i : i + n], "little") for n, i in found]
        number = draw.choice((draw.choice(others), held + 1, held - 1, 0, -1))
        result[at : at + width] = (number % 256**width).to_bytes(width, "little")
    return bytes(result)


def _with_mutated_index(data: bytes, draw: random.Random) -> bytes:
    """A sound archive around a mutated pickle, which byte changes alone seldom give."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as target,
    ):
        for info in source.infolist():
            content = source.read(info)
            if info.filename.endswith(("data.pkl", ".npy")):
                content = mutate(content, draw)
            target.writestr(zipfile.ZipInfo(info.filename), content)
    return buffer.getvalue()
