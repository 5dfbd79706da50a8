"""A byte source as a file that can be read and searched, for parsers of the standard library."""

from __future__ import annotations

import io
from typing import Any

from collapse_audit.containers.byte_source import ByteSource
from collapse_audit.errors import CheckpointError
from collapse_audit.words import megabytes

_BLOCK = 64 * 1024


class Window(io.RawIOBase):
    """Reads blocks of a byte source when they are needed, and only so many in all."""

    def __init__(
        self,
        source: ByteSource,
        name: str,  # what to call it in messages
        *,
        limit: int,  # bytes that may be read
        start: int = 0,  # where to stand; positions are those of the source
        first: int = _BLOCK,  # size of the first block
    ) -> None:
        self._source = source
        self._name = name
        self._left = limit
        self._position = start
        self._next = first
        self._start, self._block = start, b""

    def allow(self, more: int) -> None:
        """Let so many bytes more be read."""
        self._left += more

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position in the source."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Stand somewhere else; a ``ValueError`` before the beginning."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise ValueError("a position before the file")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer with the next bytes; with fewer only at the end of the source."""
        start = self._position
        end = min(start + len(buffer), self._source.size)
        if end <= start:
            return 0
        held = self._start + len(self._block)
        if start < self._start or start >= held:
            data = self._fetch(start, end)
        elif end > held:
            data = self._block[start - self._start :] + self._fetch(held, end)
        else:
            data = self._block[start - self._start : end - self._start]
        buffer[: end - start] = data
        self._position = end
        return end - start

    def _fetch(self, start: int, end: int) -> bytes:
        """Bytes of the source; what lies behind them is kept for the next call."""
        length = min(max(end - start, self._next), self._source.size - start)
        self._left -= length
        if self._left < 0:
            raise CheckpointError(
                f"{self._name}: its index is larger than {megabytes(end - start)} "
                "and what was read before; no checkpoint needs as much.",
                hint="It was not read any further. Compare its size with the source.",
            )
        self._next = _BLOCK
        self._start, self._block = start, self._source.read(start, length)
        return self._block[: end - start]
