"""What has been read of remote files: parts with their checksums, one folder for each file.

::

    files/KEY.lock                held by the process that fetches
    files/KEY/index.json          source, version, SHA-256 of every file below
    files/KEY/ranges/START-LENGTH
    files/KEY/whole/NAME
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from collapse_audit.files import is_plain_file, read_json, sha256_of, write_atomically, write_json
from collapse_audit.remote.addresses import Remote
from collapse_audit.remote.remote_files import FileVersion
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.remote.transfers import publish

FOLDER, RANGES, WHOLE = "files", "ranges", "whole"
HISTORY = "history"  # beside them: answers about the checkpoints of runs
#: Parts begin and end at multiples of this, so that small reads near one another are one request.
_BLOCK = 1 << 15
_PART = re.compile(rf"{RANGES}/([0-9]{{1,18}})-([0-9]{{1,18}})")
_FILE = re.compile(rf"{_PART.pattern}|{WHOLE}/[A-Za-z0-9_-][A-Za-z0-9._-]*")
_SHA256 = re.compile("[0-9a-f]{64}")

Range = tuple[int, int]  # first byte and length


@dataclass(frozen=True, slots=True)
class Index:
    """What the folder of a file holds."""

    source: str  # address of the file, without anything secret
    version: FileVersion  # everything in the folder is of this one
    files: dict[str, str] = field(default_factory=dict)  # SHA-256 of the completed ones, by path

    @classmethod
    def read(cls, folder: Path, source: str | None = None) -> Index | None:
        """The index of a folder; ``None`` if there is none, or it is damaged or of another file."""
        content = read_json(folder / "index.json") or {}
        try:
            index = cls(**{**content, "version": FileVersion(**content["version"])})
            return index if index._is_sound() and source in (None, index.source) else None
        except (KeyError, TypeError, AttributeError):
            return None

    def _is_sound(self) -> bool:
        """Whether everything is what it should be; anybody may have written it."""
        version = self.version
        size = version.size
        return (
            all(
                isinstance(text, str)
                for text in (self.source, version.etag or "", version.modified or "")
            )
            and (size is None or (type(size) is int and 0 <= size < 1 << 63))
            and all(
                _SHA256.fullmatch(digest)
                and (found := _FILE.fullmatch(name))
                and (found[1] is None or int(found[1]) + int(found[2]) <= (size or 0))
                for name, digest in self.files.items()
            )
        )

    def write(self, folder: Path) -> None:
        """Put it into a folder."""
        write_json(folder / "index.json", asdict(self), follow=False)


def folder_of(remote: Remote, settings: RemoteSettings) -> Path:
    """The folder of the cache that belongs to a file."""
    return settings.cache_dir / FOLDER / remote.key


class RangeCache:
    """The parts of one remote file that are on this machine.

    What it hands out has passed its checksum; what does not pass counts as not there. Who calls
    :meth:`begin` or :meth:`add` must hold the lock of the folder.
    """

    def __init__(self, remote: Remote, settings: RemoteSettings) -> None:
        self.folder = folder_of(remote, settings)
        self._empty = Index(remote.lock_key, FileVersion(None))
        self.reload()

    def reload(self) -> None:
        """Look at the folder: another process may have fetched or removed something."""
        self._index = Index.read(self.folder, self._empty.source) or self._empty
        self._intact: set[Range] = set()

    @property
    def version(self) -> FileVersion:
        """State of the file that the parts are of; without a size if there is no part."""
        return self._index.version

    def begin(self, version: FileVersion, head: bytes) -> None:
        """Start with the first bytes of a file in this state."""
        self._index = replace(self._empty, version=version)
        write_atomically(self.path(0, len(head)), head, follow=False)
        self._record((0, len(head)), hashlib.sha256(head).hexdigest())

    def add(self, start: int, length: int, partial: Path) -> None:
        """Take a part that has been fetched completely; its file gets its final name."""
        digest = sha256_of(partial)
        publish(partial, self.path(start, length))
        self._record((start, length), digest)

    def read(self, start: int, n: int) -> bytes | None:
        """Exactly ``n`` bytes of the file; ``None`` if some of them are not there."""
        pieces: list[bytes] = []
        position, end = start, start + n
        for first, length in self._parts(start, end):
            if first <= position < first + length:
                with suppress(OSError), self.path(first, length).open("rb") as file:
                    file.seek(position - first)
                    pieces.append(file.read(min(end, first + length) - position))
                    position += len(pieces[-1])
        if self.version.size is None or position < end:
            return None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def missing(self, start: int, n: int) -> list[Range]:
        """What must be fetched so that ``n`` bytes can be read; a little more than needed."""
        position, end = start // _BLOCK * _BLOCK, -(-(start + n) // _BLOCK) * _BLOCK
        end = min(end, self.version.size or end)
        gaps = []
        for first, length in [*self._parts(position, end), (end, 0)]:
            if first > position:
                gaps.append((position, first - position))
            position = max(position, first + length)
        return gaps

    def path(self, start: int, length: int) -> Path:
        """Where a part is or would be."""
        return self.folder / f"{RANGES}/{start}-{length}"

    def _parts(self, start: int, end: int) -> list[Range]:
        """The intact parts that overlap a range, in order."""
        names = filter(None, map(_PART.fullmatch, self._index.files))
        return [
            (first, length)
            for first, length in sorted((int(name[1]), int(name[2])) for name in names)
            if first < end and start < first + length and self._is_intact((first, length))
        ]

    def _is_intact(self, part: Range) -> bool:
        """Whether a part is what was written; once found so, it is not looked at again."""
        if part not in self._intact:
            path = self.path(*part)
            with suppress(OSError):
                recorded = self._index.files[f"{RANGES}/{path.name}"]
                if not is_plain_file(path):
                    pass
                elif path.stat().st_size == part[1] and sha256_of(path) == recorded:
                    self._intact.add(part)
                else:
                    path.unlink()  # parts with other limits may take its place
        return part in self._intact

    def _record(self, part: Range, digest: str) -> None:
        """Write into the index that a part is there."""
        files = {**self._index.files, f"{RANGES}/{self.path(*part).name}": digest}
        self._index = replace(self._index, files=files)
        self._index.write(self.folder)
        self._intact.add(part)
