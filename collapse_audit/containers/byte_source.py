"""Bytes that can be read in parts: the one thing every container reader needs."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from collapse_audit.errors import SourceError
from collapse_audit.files import sha256_of
from collapse_audit.words import printable


class ByteSource(Protocol):
    """A file, here or somewhere else.

    A local file is one (:class:`LocalFile`), and so are the bytes of a pipe (:class:`InMemory`) and
    a file of a web server or of an fsspec file system (:mod:`collapse_audit.remote`).
    """

    @property
    def size(self) -> int:
        """Its length in bytes."""

    def read(self, start: int, n: int) -> bytes:
        """Bytes ``start`` to ``start + n``; exactly ``n``, or a ``SourceError``."""


class LocalFile:
    """A file of this machine, opened anew for each read; it must not change between them."""

    def __init__(self, path: Path) -> None:
        """Look at the file, which has to be a regular one."""
        self.path = path
        try:
            found = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        if not stat.S_ISREG(found.st_mode):  # to open a pipe may take for ever
            raise SourceError(f"{printable(path)}: is not a regular file.")
        self._size, self._state = found.st_size, _state(found)

    @property
    def size(self) -> int:
        """Its length in bytes, when it was opened."""
        return self._size

    def read(self, start: int, n: int) -> bytes:
        """Exactly ``n`` bytes; a ``SourceError`` if the file is no longer what it was."""
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(start)
                data = file.read(n)
                while len(data) < n and (more := file.read(n - len(data))):
                    data += more  # one system call gives at most 2 GiB
                self._check(os.fstat(file.fileno()))
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if len(data) != n:
            raise SourceError(
                f"{printable(self.path)}: {n:,} bytes from {start:,} on are beyond it."
            )
        return data

    def sha256(self, progress: Callable[[str, int, int], object] | None = None) -> str:
        """The SHA-256 of all of it, read once; a ``SourceError`` if it has changed."""
        try:
            digest = sha256_of(self.path, progress)
            self._check(self.path.stat())
        except OSError as error:
            raise _unreadable(self.path, error) from error
        return digest

    def _check(self, found: os.stat_result) -> None:
        if _state(found) != self._state:
            raise SourceError(
                f"{printable(self.path)}: changed while it was read.",
                hint="Does another program write it? Run it again when that is done.",
            )


class InMemory:
    """Bytes that are here already, such as those of a pipe."""

    def __init__(self, data: bytes | bytearray) -> None:
        """Take all of them."""
        self._data = data

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._data)

    def read(self, start: int, n: int) -> bytes:
        """Exactly ``n`` bytes; a ``SourceError`` if they lie beyond the end."""
        if start + n > len(self._data):
            raise SourceError(f"{n:,} bytes from {start:,} on lie beyond {len(self._data):,}.")
        return bytes(self._data[start : start + n])


class Part:
    """A part of a byte source that is a file of its own."""

    def __init__(self, source: ByteSource, start: int, length: int, name: str) -> None:
        """Cut it out, ``name`` in messages; a ``SourceError`` if the whole is too short."""
        if start + length > source.size:
            raise SourceError(
                f"{name}: has {source.size:,} bytes, but {start + length:,} are expected.",
                hint="The file is truncated: compare its size with the source.",
            )
        self._source, self._start, self._length = source, start, length

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return self._length

    def read(self, start: int, n: int) -> bytes:
        """Exactly ``n`` bytes; a ``SourceError`` if they lie beyond its end."""
        if start + n > self._length:
            raise SourceError(f"{n:,} bytes from {start:,} on lie beyond {self._length:,}.")
        return self._source.read(self._start + start, n)


def _state(found: os.stat_result) -> tuple[int, ...]:
    """What tells one state of a file from another."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _unreadable(path: Path, error: OSError) -> SourceError:
    if isinstance(error, FileNotFoundError):
        return SourceError(
            f"{printable(path)}: is missing.",
            hint="Download it too: it belongs to this checkpoint.",
        )
    return SourceError(
        f"{printable(path)}: cannot be opened ({error.strerror or error}).",
        hint="Check the file's permissions.",
    )
