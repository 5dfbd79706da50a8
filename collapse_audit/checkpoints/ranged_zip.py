"""The directory of a zip archive of which only parts can be read."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass

from collapse_audit.checkpoints.tensors import megabytes, printable
from collapse_audit.errors import CheckpointError
from collapse_audit.remote.remote_files import RemoteFile

_TAIL_BYTES = 128 * 1024  # the directory of some 1,500 members, in one request
_BLOCK_BYTES = 32 * 1024
_MAX_INDEX_BYTES = 48 * 1024**2
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field


@dataclass(frozen=True, slots=True)
class Member:
    """One stored member of the archive.

    Attributes:
        header_offset: Where its local header begins.
        size: Bytes of its content.
        crc: Its checksum, as the directory states it.
    """

    header_offset: int
    size: int
    crc: int


class RangedZip:
    """A zip archive behind ranged reads."""

    def __init__(self, file: RemoteFile) -> None:
        """Read the directory at the end of the archive.

        Args:
            file: The remote file.

        Raises:
            CheckpointError: If there is no directory, or it is not one that torch writes.
        """
        self._file = file
        self.size = file.version.size or 0
        try:
            with zipfile.ZipFile(_Window(file, self.size)) as archive:
                infos = archive.infolist()
        # NotImplementedError: a damaged file may ask for a zip version that there is not.
        except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, struct.error) as e:
            raise CheckpointError(
                f"{file.shown}: a truncated or damaged zip checkpoint of {megabytes(self.size)}: "
                f"the index at its end cannot be read ({printable(e)}).",
                hint="Compare its size with the source.",
            ) from e
        self.members: dict[str, Member] = {}
        for info in infos:
            self._add(info)

    def _add(self, info: zipfile.ZipInfo) -> None:
        name = f"{self._file.shown}: zip member {printable(info.filename)!r}"
        if info.filename in self.members:
            raise CheckpointError(f"{name} appears more than once.")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise CheckpointError(
                f"{name} is compressed, which torch never does.",
                hint="If the checkpoint was repacked, save it again with torch.save.",
            )
        if info.header_offset < 0 or info.header_offset + 30 + info.file_size > self.size:
            raise CheckpointError(
                f"{name} reaches beyond the {self.size:,} bytes of the file.",
                hint="Compare its size with the source.",
            )
        self.members[info.filename] = Member(info.header_offset, info.file_size, info.CRC)

    def read(self, name: str, limit: int) -> bytes:
        """The content of a small member.

        Args:
            name: Its name.
            limit: Largest size in bytes.

        Returns:
            Its bytes; empty if there is no such member.

        Raises:
            CheckpointError: If it is larger, or not where the directory says.
        """
        member = self.members.get(name)
        if member is None:
            return b""
        if member.size > limit:
            raise CheckpointError(
                f"{self._file.shown}: its index {printable(name)!r} declares "
                f"{megabytes(member.size)}; it was not read.",
                hint=f"A checkpoint's index has about 1 MB; at most {megabytes(limit)} are read.",
            )
        start = content_start(self._file, member.header_offset, member.size)
        return self._file.read(start, member.size) if member.size else b""


def content_start(file: RemoteFile, header_offset: int, size: int) -> int:
    """Where the content of a zip member begins: behind its local header, whose length varies.

    Args:
        file: The archive.
        header_offset: Where the directory says that the local header is.
        size: Bytes of the content.

    Returns:
        Its position in the file.

    Raises:
        CheckpointError: If there is no member of this size there.
    """
    header = file.read(header_offset, _LOCAL_HEADER.size)
    signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    start = header_offset + _LOCAL_HEADER.size + int(name_length) + int(extra_length)
    if signature != b"PK\x03\x04" or start + size > (file.version.size or 0):
        raise CheckpointError(
            f"{file.shown}: its zip directory points to places without a member.",
            hint="The file is damaged: compare its size with the source.",
        )
    return start


class _Window(io.RawIOBase):
    """A seekable view that fetches blocks when they are read, and only so many."""

    def __init__(self, file: RemoteFile, size: int) -> None:
        self._file = file
        self._size = size
        self._position = 0
        self._fetched = 0
        tail = max(0, size - _TAIL_BYTES)
        self._start, self._block = tail, self._fetch(tail, size - tail)

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a position before the file")
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        start, end = self._position, self._size
        if size >= 0:
            end = min(end, start + size)
        if end <= start:
            return b""
        if start < self._start or end > self._start + len(self._block):
            length = min(max(end - start, _BLOCK_BYTES), self._size - start)
            self._start, self._block = start, self._fetch(start, length)
        self._position = end
        return self._block[start - self._start : end - self._start]

    def _fetch(self, start: int, length: int) -> bytes:
        self._fetched += length
        if self._fetched > _MAX_INDEX_BYTES:
            raise CheckpointError(
                f"{self._file.shown}: its zip directory has over {megabytes(_MAX_INDEX_BYTES)}.",
                hint="No checkpoint needs as much; it was not read any further.",
            )
        return self._file.read(start, length)
