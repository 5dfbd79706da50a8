"""Read single tensors of a remote file, through the cache."""

from __future__ import annotations

import hashlib
import zlib
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from collapse_audit.checkpoints.ranged_files import RangedIndex, RangedTensor
from collapse_audit.checkpoints.ranged_zip import Member, RangedZip, content_start
from collapse_audit.checkpoints.tensors import Checkpoint, StoredTensor, widen_bfloat16
from collapse_audit.errors import SourceError
from collapse_audit.remote import (
    RangesUnusableError,
    Remote,
    RemoteFile,
    Reporter,
    StorageSettings,
    StoredBytes,
    TensorStore,
    check_and_record,
    discard,
    exclusive,
    fetch_part,
    try_mirrors,
)


class RangedReader:
    """Reads tensors of one remote file; what was read once is read from the cache."""

    def __init__(
        self, remote: Remote, index: RangedIndex, settings: StorageSettings, reporter: Reporter
    ) -> None:
        self._remote = remote
        self._index = index
        self._settings = settings
        self._reporter = reporter
        self._store = TensorStore(remote, settings)

    def checkpoint(self) -> Checkpoint:
        """The file as every other reader describes one.

        Returns:
            Its tensors; each is fetched when it is read.
        """
        tensors = [
            StoredTensor(t.path, t.shape, t.dtype, t.storage, partial(self._values, t))
            for t in self._index.tensors
        ]
        return Checkpoint(
            path=self._store.folder,
            container=self._index.container,
            tensors={tensor.key: tensor for tensor in tensors},
            top_level=self._index.top_level,
            options=frozenset(self._index.options),
        )

    def _values(self, tensor: RangedTensor) -> npt.NDArray[Any]:
        """The values of a tensor, from the cache if they are there."""
        tensor.check(self._remote.name)
        stored = self._store.get(tensor.key)
        if stored is None and not self._settings.offline:
            with exclusive(self._store.folder, self._settings):
                # another process may have fetched it meanwhile
                stored = self._store.get(tensor.key) or self._fetch(tensor)
        if stored is None:
            raise SourceError(
                f"{self._remote.name}: {tensor.key!r} is not in the cache, and offline mode is on.",
                hint="Run `collapse-audit download` where there is a network.",
            )
        check_and_record(self._remote, {f"tensor:{tensor.key}": stored.sha256}, self._settings)
        bits = np.dtype("uint16" if tensor.dtype == "bfloat16" else tensor.dtype)
        values: npt.NDArray[Any] = np.frombuffer(stored.data, bits.newbyteorder("<"))
        values = values.reshape(tensor.shape)
        return widen_bfloat16(values) if tensor.dtype == "bfloat16" else values

    def _fetch(self, tensor: RangedTensor) -> StoredBytes:
        partial_path = self._store.path(tensor.key).with_suffix(".partial")
        data = try_mirrors(
            self._remote,
            lambda file: self._bytes(tensor, file, partial_path),
            self._settings,
            self._reporter,
        )
        check_and_record(self._remote, {f"tensor:{tensor.key}": _sha256(data)}, self._settings)
        stored = self._store.put(tensor.key, tensor.dtype, tensor.shape, data, self._index.version)
        discard(partial_path)
        return stored

    def _bytes(self, tensor: RangedTensor, file: RemoteFile, partial_path: Any) -> memoryview:
        """The values as the cache keeps them: contiguous and little-endian."""
        if file.version.differs_from(self._index.version):
            raise SourceError(
                f"{self._remote.name}: the file changed on the server since its index was read.",
                hint="To take the new file, run `collapse-audit cache clear` first.",
            )
        if not file.has_ranges:
            raise RangesUnusableError(f"{file.shown}: the server no longer allows ranges.")
        start = tensor.base
        if self._index.container == "zip":
            start = content_start(file, tensor.base, tensor.block)
        start += tensor.offset
        fetch_part(
            file, start, tensor.span, partial_path, settings=self._settings, reporter=self._reporter
        )
        raw = partial_path.read_bytes()
        if len(raw) != tensor.span:
            discard(partial_path)
            raise SourceError(f"{file.shown}: {len(raw):,} bytes came instead of {tensor.span:,}.")
        if tensor.crc is not None and tensor.span == tensor.block and zlib.crc32(raw) != tensor.crc:
            # torch can be told to save without checksums: what comes twice is what is stored
            member = Member(tensor.base, tensor.block, tensor.crc)
            same_file = member in RangedZip(file).members.values()
            if not same_file or file.read(start, tensor.span) != raw:
                discard(partial_path)
                raise SourceError(
                    f"{file.shown}: {tensor.key!r} does not have the checksum of the index.",
                    hint="The file changes, or the connection damages it: clear the cache "
                    "(collapse-audit cache clear) and run it again.",
                )
        return _contiguous(tensor, raw)


def _contiguous(tensor: RangedTensor, raw: bytes) -> memoryview:
    bits = np.dtype("uint16" if tensor.dtype == "bfloat16" else tensor.dtype)
    stored = bits.newbyteorder("<" if tensor.little else ">")
    flat = np.frombuffer(raw, stored)
    steps = [step * stored.itemsize for step in tensor.strides]
    view = np.lib.stride_tricks.as_strided(flat, tensor.shape, steps, writeable=False)
    values = np.ascontiguousarray(view, dtype=bits.newbyteorder("<"))
    return values.reshape(-1).view(np.uint8).data


def _sha256(data: memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
