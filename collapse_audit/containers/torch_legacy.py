"""Files of torch.save before version 1.6: pickles, and behind them one storage after the other.

A storage lies where the sizes of those before it say, so that a head can be read from the middle of
a file at an address (SwAV, DeepCluster-v2 and SeLa-v2 publish such files).
"""

from __future__ import annotations

import io
from typing import Any

from collapse_audit.containers.byte_source import ByteSource
from collapse_audit.containers.index_machine import read_index
from collapse_audit.containers.limits import INDEX_BYTES
from collapse_audit.containers.pickled import StorageRef, TensorRef
from collapse_audit.containers.tensors import WIDTHS, Checkpoint, Values
from collapse_audit.containers.torch_zip import torch_checkpoint
from collapse_audit.containers.views import read_view
from collapse_audit.containers.window import Window
from collapse_audit.errors import CheckpointError
from collapse_audit.words import megabytes, printable

#: Begins the first pickle of such a file, behind its protocol: torch's magic number.
LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")
_LONGEST_PROTOCOL = 11  # two bytes, and a frame since protocol 4
_COUNT_BYTES = 8  # the number of values stands before them
_WIDTHS = WIDTHS | {"complex64": 8, "complex128": 16, "qint8": 1, "quint8": 1, "qint32": 4}


def is_legacy(head: bytes) -> bool:
    """Whether the first bytes of a file are those of torch before 1.6, of whatever protocol."""
    if head[:1] != b"\x80":  # of protocol 1, which has no number of its own
        return head.startswith(b"L119547037146038801333356L\n.")
    return LEGACY_MAGIC in head[: _LONGEST_PROTOCOL + len(LEGACY_MAGIC)]


def read_torch_legacy(source: ByteSource, name: str) -> Checkpoint:
    """Describe the tensors of a file of :func:`is_legacy`; each is read when asked for."""
    window = Window(source, name, limit=2 * INDEX_BYTES)
    # pickletools reads byte by byte: not through Python each time
    stream: Any = io.BufferedReader(window)
    for _magic_version_system in range(3):
        read_index(stream, name)
    index = read_index(stream, name)
    keys = read_index(stream, name).root
    if not isinstance(keys, list):
        raise _damaged(name, "no list of storages follows its index")
    starts = _starts(keys, index.storages, stream.tell(), source.size, name)

    def read(tensor: TensorRef, where: str) -> Values:
        start = starts.get(tensor.storage.key)
        if start is None:
            raise _damaged(where, "its storage is not where the file says")
        # little-endian, like the values, whatever machine wrote them
        count = int.from_bytes(source.read(start, _COUNT_BYTES), "little")
        if count != tensor.storage.root_numel:
            raise _damaged(where, f"its storage has {count:,} values, not those of the index")
        block = count * _WIDTHS[tensor.storage.dtype]
        begin = start + _COUNT_BYTES
        return read_view(tensor, block, lambda at, n: source.read(begin + at, n), name=where)

    return torch_checkpoint(name, "legacy", source.size, index, read)


def _starts(
    keys: list[Any], storages: dict[str, StorageRef], begin: int, size: int, name: str
) -> dict[str, int]:
    """Where each storage begins, as far as the sizes of those before it are known."""
    starts: dict[str, int] = {}
    place = begin
    for key in keys:
        storage = storages.get(key) if isinstance(key, str) else None
        if storage is None or storage.dtype not in _WIDTHS:
            break
        starts[key] = place
        place += _COUNT_BYTES + storage.root_numel * _WIDTHS[storage.dtype]
    if place > size:
        raise CheckpointError(
            f"{name}: truncated: a torch file of {megabytes(size)} that should have "
            f"{megabytes(place)}.",
            hint="Download it again and compare its size with the source.",
        )
    return starts


def _damaged(where: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{where}: a damaged torch file: {printable(what)}.",
        hint="Download it again and compare its size with the source.",
    )
