"""Zip archives behind a byte source: stored members in parts, compressed ones up to a bound.

The directory is read by the standard library. What is refused here are archives of which two
readers could see two contents: two directories, members that overlap, names that differ in case.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections import Counter
from typing import IO

from collapse_audit.containers.byte_source import ByteSource
from collapse_audit.containers.limits import DIRECTORY_BYTES, UNPACKED_BYTES
from collapse_audit.containers.window import Window
from collapse_audit.errors import CheckpointError
from collapse_audit.words import megabytes, printable

_TAIL_BYTES = 128 * 1024  # the directory of some 1,500 members, in one read
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL_HEADER = struct.Struct("<4s2xHH14x2xHH")  # flags, method, lengths of name and extra field
# A checksum needs the whole member: this much may be read for it beside the values asked for.
_SPARE_SHARE, _SPARE_BYTES = 0.03, 512 * 1024
#: How a damaged archive shows itself. NotImplementedError: of a zip version that there is not.
DAMAGE = (
    zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError,
    struct.error, OverflowError,
)  # fmt: skip


class ZipArchive:
    """A zip archive, of which torch or numpy can have written the directory."""

    def __init__(self, source: ByteSource, name: str) -> None:
        self.name = name  # for messages
        self._source = source
        tail = min(_TAIL_BYTES, source.size)
        self._window = Window(source, name, limit=DIRECTORY_BYTES, first=tail)
        self._window.seek(source.size - tail)
        self._window.read(1)
        try:
            self._archive = zipfile.ZipFile(self._window)  # nothing that would have to be closed
            infos, directory = self._archive.infolist(), self._archive.start_dir
            self._check_end(directory)
        except DAMAGE as error:
            raise CheckpointError(
                f"{name}: a truncated or damaged zip file of {megabytes(source.size)}: "
                f"the index at its end cannot be read ({printable(error)}).",
                hint="Download it again and compare its size with the source.",
            ) from error
        self._check_names(infos)
        self._check_places(infos, directory)
        self.members = {info.filename: info for info in infos}

    def _check_end(self, directory: int) -> None:
        """Refuse an archive whose end allows a second reading."""
        data = self._source.read(self._source.size - _END.size, _END.size)
        signature, *_, offset, comment = _END.unpack(data)
        if signature != b"PK\x05\x06" or comment:
            raise ValueError("something follows the directory")
        place = self._source.size - _END.size - _END64_LOCATOR.size
        if place >= 0:
            locator, _, start, _ = _END64_LOCATOR.unpack(
                self._source.read(place, _END64_LOCATOR.size)
            )
            if locator == b"PK\x06\x07":
                if start + _END64.size > place:
                    raise ValueError("its zip64 directory is not there")
                large = _END64.unpack(self._source.read(start, _END64.size))[9]
                if offset not in (large, 0xFFFFFFFF):
                    raise ValueError("two directories")
                offset = large
        if offset != directory:
            raise ValueError("two directories, or something before the archive")

    def _check_names(self, infos: list[zipfile.ZipInfo]) -> None:
        names = Counter(info.filename.lower() for info in infos)
        if infos and names.most_common(1)[0][1] > 1:
            twice = names.most_common(1)[0][0]
            raise CheckpointError(
                f"{self.name}: zip member {printable(twice)!r} appears more than once "
                "(or in two spellings), and readers disagree about such files.",
                hint="Neither torch nor numpy writes this: get the file from its source again.",
            )

    def _check_places(self, infos: list[zipfile.ZipInfo], directory: int) -> None:
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            stored = info.compress_type == zipfile.ZIP_STORED
            two_sizes = info.volume or (stored and info.file_size != info.compress_size)
            if two_sizes or info.header_offset < end:
                what = "has two sizes" if two_sizes else "lies inside another"
                raise CheckpointError(
                    f"{self.name}: zip member {printable(info.filename)!r} {what}.",
                    hint="Neither torch nor numpy writes this: get the file from its source again.",
                )
            end = info.header_offset + 30 + info.compress_size
            if end > directory:
                raise CheckpointError(
                    f"{self.name}: truncated: zip member {printable(info.filename)!r} "
                    f"reaches beyond the {self._source.size:,} bytes of the file.",
                    hint="Download it again and compare its size with the source.",
                )

    def read(self, name: str, limit: int) -> bytes:
        """The content of a member of at most so many bytes, verified; empty if there is none."""
        info = self.members.get(name)
        if info is None:
            return b""
        if info.file_size > limit:
            raise CheckpointError(
                f"{self.name}: its index {printable(name)!r} declares "
                f"{megabytes(info.file_size)}; it was not read.",
                hint=f"At most {megabytes(limit)} are read of it.",
            )
        return self.read_part(info, 0, info.file_size)

    def read_part(self, info: zipfile.ZipInfo, start: int, length: int) -> bytes:
        """Exactly so many bytes of a member; verified where reading all costs little more."""
        if info.compress_type != zipfile.ZIP_STORED:
            try:
                with self.open(info) as file:
                    file.seek(start)
                    data = file.read(length)
                    file.read(1)  # the checksum is compared at the end
            except DAMAGE as error:
                raise self._damaged(info, printable(error)) from None
            if len(data) != length:
                raise self._damaged(info, f"{len(data):,} bytes instead of {length:,}")
            return data
        begin = self._content_start(info)
        spare = info.file_size - length
        if spare > _SPARE_SHARE * length + _SPARE_BYTES:
            return self._source.read(begin + start, length)
        data = self._source.read(begin, info.file_size)
        # torch can be told to save without checksums, and then writes 0
        if info.CRC and zlib.crc32(data) != info.CRC:
            raise self._damaged(info, "its checksum is not that of the directory")
        return data if not spare else data[start : start + length]

    def open(self, info: zipfile.ZipInfo) -> IO[bytes]:
        """A member as a file, unpacked while it is read; damage raises one of :data:`DAMAGE`."""
        where = f"{self.name}: zip member {printable(info.filename)!r}"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CheckpointError(
                f"{where} is compressed in a way that neither torch nor numpy uses.",
                hint="Save it again with torch.save, numpy.savez or safetensors.",
            )
        if info.compress_type == zipfile.ZIP_DEFLATED and info.file_size > UNPACKED_BYTES:
            raise CheckpointError(
                f"{where} unpacks to {megabytes(info.file_size)}.",
                hint="Save it without compression (numpy.savez, torch.save).",
            )
        self._window.allow(info.compress_size + DIRECTORY_BYTES)
        return self._archive.open(info)

    def _content_start(self, info: zipfile.ZipInfo) -> int:
        """Where the content begins: behind the local header, whose length varies."""
        size = _LOCAL_HEADER.size
        written = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
        header = self._source.read(info.header_offset, size + len(written))
        signature, flags, method, name_length, extra_length = _LOCAL_HEADER.unpack(header[:size])
        start = info.header_offset + size + int(name_length) + int(extra_length)
        if (
            signature != b"PK\x03\x04"
            or method != info.compress_type
            or flags & 0x1  # encrypted
            or start + info.compress_size > self._source.size
            or header[size:] != written
        ):
            raise CheckpointError(
                f"{self.name}: its zip directory points to places without a member.",
                hint="The file is damaged: compare its size with the source.",
            )
        return start

    def _damaged(self, info: zipfile.ZipInfo, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.name}: zip member {printable(info.filename)!r} is damaged: {what}.",
            hint="Download it again and compare its size with the source.",
        )
