"""Tensors taken out of remote files, each a safetensors file that says where it came from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from collapse_audit.errors import IntegrityError
from collapse_audit.remote.addresses import Remote
from collapse_audit.remote.remote_files import FileVersion
from collapse_audit.remote.settings import StorageSettings
from collapse_audit.remote.writing import read_json, write_atomically, write_json
from collapse_audit.version import __version__

# name of a numpy type -> name in a safetensors header
SAFETENSORS_TYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_PREFIX = "collapse_audit."
_MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class StoredBytes:
    """One tensor of the cache, its checksum verified.

    Attributes:
        key: Its key in the remote file.
        data: Its values, little-endian and contiguous.
        metadata: Where it came from: ``source``, ``etag``, ``modified``, ``size``, ``sha256``...
    """

    key: str
    data: memoryview
    metadata: dict[str, str]

    @property
    def sha256(self) -> str:
        """Of the values."""
        return self.metadata["sha256"]


class TensorStore:
    """The part of the cache that belongs to one remote file."""

    def __init__(self, remote: Remote, settings: StorageSettings) -> None:
        self._remote = remote
        self.folder = settings.cache_dir / "heads" / remote.key
        self._index = self.folder / "index.json"

    def index(self) -> dict[str, Any] | None:
        """What is in the remote file, as it was stored.

        Returns:
            The value given to :meth:`put_index`; ``None`` if there is none.
        """
        return read_json(self._index)

    def put_index(self, index: dict[str, Any]) -> None:
        """Store what is in the remote file.

        Args:
            index: Plain values.
        """
        write_json(self._index, index)

    def path(self, key: str) -> Path:
        """Where a tensor is or would be.

        Args:
            key: Its key in the remote file.

        Returns:
            A path in the folder; keys have any characters, so it is a digest.
        """
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"

    def get(self, key: str) -> StoredBytes | None:
        """Read a tensor back.

        Args:
            key: Its key in the remote file.

        Returns:
            The tensor; ``None`` if it is not there, or if the file no longer passes its checksum
            and must be fetched again.
        """
        try:
            stored = read_stored(self.path(key))
        except (OSError, IntegrityError):
            return None
        return stored if stored.key == key else None

    def put(
        self, key: str, dtype: str, shape: tuple[int, ...], data: memoryview, version: FileVersion
    ) -> StoredBytes:
        """Store a tensor.

        Args:
            key: Its key in the remote file.
            dtype: Its type, such as ``"float32"``.
            shape: Its shape.
            data: Its values, little-endian and contiguous.
            version: State of the remote file.

        Returns:
            What :meth:`get` gives from now on.
        """
        about = {
            "key": key,
            "source": self._remote.lock_key,
            "name": self._remote.name,
            "etag": version.etag or "",
            "modified": version.modified or "",
            "size": "" if version.size is None else str(version.size),
            "sha256": hashlib.sha256(data).hexdigest(),
            "file_sha256": self._remote.sha256 or "",
            "fetched": datetime.now(UTC).isoformat(timespec="seconds"),
            "version": __version__,
        }
        entry = {
            "dtype": SAFETENSORS_TYPES[dtype],
            "shape": list(shape),
            "data_offsets": [0, data.nbytes],
        }
        metadata = {"format": "pt"} | {_PREFIX + name: value for name, value in about.items()}
        header = json.dumps({"__metadata__": metadata, key: entry}).encode()
        header += b" " * (-len(header) % 8)
        write_atomically(self.path(key), len(header).to_bytes(8, "little"), header, data)
        return StoredBytes(key, data, about)


def read_stored(path: Path) -> StoredBytes:
    """Read a tensor of the cache and verify its checksum.

    Args:
        path: The file.

    Returns:
        The tensor.

    Raises:
        OSError: If the file cannot be read.
        IntegrityError: If it is not what was written.
    """  # noqa: DOC501  (_damaged makes one)
    content = memoryview(path.read_bytes())
    length = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(bytes(content[8 : 8 + min(length, _MAX_HEADER_BYTES)]))
        about = header.pop("__metadata__")
        (key,) = header
        metadata = {name.removeprefix(_PREFIX): str(value) for name, value in about.items()}
        expected = metadata["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _damaged(path, "its header is damaged") from None
    data = content[8 + length :]
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise _damaged(path, f"it has SHA-256 {found}, but {expected} was written")
    return StoredBytes(key, data, metadata)


def _damaged(path: Path, what: str) -> IntegrityError:
    return IntegrityError(
        f"{path.name}: a damaged file of the cache: {what}.",
        hint="Run `collapse-audit cache clear` and fetch it again.",
    )
