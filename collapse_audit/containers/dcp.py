"""Folders of torch.distributed.checkpoint: ``.metadata``, and files of one zip after the other.

DINOv3, torchtitan and Accelerate write them. The index says where each piece of each tensor is, so
that the pieces of a head are gathered and the rest is not read. Torch's own converter
(``dcp_to_torch``) unpickles the index without restriction and reads everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from collapse_audit.containers.byte_source import ByteSource, Part
from collapse_audit.containers.index_machine import read_index
from collapse_audit.containers.limits import DIMENSIONS, FILES, INDEX_BYTES
from collapse_audit.containers.pickled import Name, Opaque, TensorRef, key_name, natural
from collapse_audit.containers.pieces import Piece, gathered
from collapse_audit.containers.sharded import check_names
from collapse_audit.containers.tensors import WIDTHS, Checkpoint, Values, by_key, not_read
from collapse_audit.containers.torch_zip import index_folder, read_tensor
from collapse_audit.containers.zip_archive import ZipArchive
from collapse_audit.errors import CheckpointError
from collapse_audit.words import printable

METADATA = ".metadata"
#: What the first bytes of such an index name.
METADATA_CLASS = b"torch.distributed.checkpoint.metadata"

_Place = tuple[str, int, int]  # file, first byte, bytes
_Chunk = tuple[tuple[int, ...], tuple[int, ...]]  # where it begins in the tensor, its shape


def read_dcp(metadata: ByteSource, open_file: Callable[[str], ByteSource], name: str) -> Checkpoint:
    """Describe the tensors of a folder; each is gathered from its pieces when asked for."""
    if metadata.size > INDEX_BYTES:
        raise _unknown(name, "is larger than that of any checkpoint")
    root = read_index(metadata.read(0, metadata.size), f"{name}/{METADATA}").root
    held = root.attributes if isinstance(root, Opaque) else {}
    described, stored = held.get("state_dict_metadata"), held.get("storage_data")
    if not isinstance(described, dict) or not isinstance(stored, dict):
        raise _unknown(name, "lists no tensors")
    try:
        places = _places(stored)
        paths = _paths(held.get("planner_data"))
        found = _tensors(described, len(places))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise _unknown(name, f"cannot be understood ({printable(error, 80)})") from error
    names = {place[0] for place in places.values()}
    check_names(names, name)
    if len(names) > FILES:
        raise _unknown(name, f"names over {FILES:,} files")
    open_once = cache(open_file)  # and only when a tensor needs it
    tensors = []
    for key, dtype, shape, chunks in found:
        if dtype not in WIDTHS:
            continue
        path = paths.get(key, (key_name(key),))
        pieces = [
            Piece(*chunk, partial(_read, open_once, place, chunk[1], dtype, name), place)
            for chunk in chunks
            for place in [_place(key, chunk, places, name)]
        ]
        if pieces:
            tensors.append(gathered(path, dtype, pieces, name, shape))
    other = not_read(dtype for _, dtype, *_ in found if dtype not in WIDTHS)
    top = dict.fromkeys(paths.get(key, (key_name(key),))[0] for key in described)
    ends: dict[str, int] = {}
    for file, start, length in places.values():
        ends[file] = max(ends.get(file, 0), start + length)
    size = sum(ends.values()) + metadata.size
    return Checkpoint(name, "dcp", size, by_key(tensors), tuple(top), unread=other)


def _tensors(
    described: Mapping[Any, Any], places: int
) -> list[tuple[Any, str, tuple[int, ...], list[_Chunk]]]:
    """Key, type, shape and pieces of every tensor; each piece has a place of its own."""
    found = []
    for key, entry in described.items():
        if isinstance(entry, Opaque) and entry.kind.endswith(".TensorStorageMetadata"):
            places -= len(entry.attributes["chunks"])
            if places < 0:
                raise ValueError("more pieces than places")
            found.append((key, *_tensor(entry)))
    return found


def _tensor(entry: Opaque) -> tuple[str, tuple[int, ...], list[_Chunk]]:
    """Type, shape and pieces of one tensor."""
    held = entry.attributes
    properties = held["properties"].state  # (dtype, layout, requires_grad, memory format, pinned)
    dtype = properties[0] if isinstance(properties, tuple) else properties["dtype"]
    if not isinstance(dtype, Name):
        raise TypeError("a type that is none")
    blocks = (chunk.attributes for chunk in held["chunks"])
    chunks = [(_sizes(block["offsets"]), _sizes(block["sizes"])) for block in blocks]
    return dtype.name, _sizes(held["size"]), chunks


def _sizes(values: Any) -> tuple[int, ...]:
    if len(values) > DIMENSIONS:
        raise ValueError("too many dimensions")
    return tuple(map(natural, values))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a name that is no text")
    return value


def _places(stored: Mapping[Any, Any]) -> dict[tuple[str, tuple[int, ...]], _Place]:
    """Where each piece is: by the name of its tensor and its offsets in it."""
    places = {}
    for index, info in stored.items():
        if not isinstance(index, Opaque) or not isinstance(info, Opaque):
            continue
        at, where = index.attributes, info.attributes
        if where.get("transform_descriptors"):
            raise ValueError("its files are compressed")
        offsets = _sizes(at["offset"]) if at.get("offset") is not None else ()
        place = (_text(where["relative_path"]), natural(where["offset"]), natural(where["length"]))
        places[_text(at["fqn"]), offsets] = place
    last = ("", 0)
    for file, start, length in sorted(places.values()):
        if (file, start) < last:
            raise ValueError("two pieces at one place")
        last = (file, start + length)
    return places


def _paths(planned: Any) -> dict[str, tuple[str, ...]]:
    """The nested keys of each flattened name, as the writer's planner noted them."""
    if not isinstance(planned, dict):
        return {}
    return {
        str(name): tuple(map(key_name, path))
        for name, path in planned.items()
        if isinstance(path, tuple) and path
    }


def _place(
    key: str, chunk: _Chunk, places: Mapping[tuple[str, tuple[int, ...]], _Place], name: str
) -> _Place:
    place = places.get((str(key), chunk[0])) or places.get((str(key), ()))
    if place is None:
        raise _unknown(name, f"does not say where a piece of {printable(key)!r} is")
    return place


def _read(
    open_file: Callable[[str], ByteSource],
    place: _Place,
    shape: tuple[int, ...],
    dtype: str,
    name: str,
) -> Values:
    """One piece: a tensor that torch.save wrote into the middle of a file."""
    file, start, length = place
    where = f"{name}/{printable(file)}"
    if math.prod(shape) * WIDTHS[dtype] > length:
        raise _unknown(where, f"has no room for a piece of {printable(list(shape))}")
    archive = ZipArchive(Part(open_file(file), start, length, where), where)
    folder = index_folder(archive)
    tensor = read_index(archive.read(f"{folder}data.pkl", INDEX_BYTES), where).root
    if not isinstance(tensor, TensorRef) or tensor.shape != shape or tensor.dtype != dtype:
        raise _unknown(where, "holds another tensor than the index says")
    little = archive.read(f"{folder}byteorder", 16) != b"big"
    return read_tensor(archive, folder, tensor, where, little=little)


def _unknown(name: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{name}: a checkpoint of torch.distributed.checkpoint whose index {what}.",
        hint="Compare the folder with its source; if it is whole, load it in the training code and "
        "save its state dict with torch.save.",
    )
