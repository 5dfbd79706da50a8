"""Bytes that can be read in parts: the one thing every container reader needs."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from collapse_audit.errors import SourceError
from collapse_audit.words import printable


class ByteSource(Protocol):
    """A file, here or somewhere else.

    A local file is one (:class:`LocalFile`), and so is a file of a web server or of an fsspec file
    system (:mod:`collapse_audit.remote`).
    """

    @property
    def size(self) -> int:
        """Its length in bytes."""

    def read(self, start: int, n: int) -> bytes:
        """Bytes ``start`` to ``start + n``; exactly ``n``, or a ``SourceError``."""


class LocalFile:
    """A file of this machine, opened anew for each read: nothing stays open."""

    def __init__(self, path: Path) -> None:
        """Look at a regular file; a ``SourceError`` if it cannot be."""
        self.path = path
        try:
            self._size = path.stat().st_size
        except OSError as error:
            raise _unreadable(path, error) from error

    @property
    def size(self) -> int:
        """Its length in bytes, when it was opened."""
        return self._size

    def read(self, start: int, n: int) -> bytes:
        """As of every source; a ``SourceError`` too if the file has become shorter."""
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(start)
                data = file.read(n)
                while len(data) < n and (more := file.read(n - len(data))):
                    data += more  # one system call gives at most 2 GiB
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if len(data) != n:
            raise SourceError(
                f"{printable(self.path)}: has {self._size:,} bytes, but {n:,} from {start:,} on "
                "could not be read.",
                hint="Does another program write it? Run it again when that is done.",
            )
        return data


class Part:
    """A part of a byte source that is a file of its own."""

    def __init__(self, source: ByteSource, start: int, length: int, name: str) -> None:
        """Cut it out, unread; ``name`` is for the ``SourceError`` if the whole is too short."""
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
        """Bytes from ``start`` of the part; a ``SourceError`` if they lie beyond its end."""
        if start + n > self._length:
            raise SourceError(f"{n:,} bytes from {start:,} on lie beyond {self._length:,}.")
        return self._source.read(self._start + start, n)


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
