"""Files of every other scheme that fsspec knows: s3, gs, sftp, memory, ..."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from collapse_audit.errors import SourceError
from collapse_audit.remote.remote_files import (
    HEAD_BYTES,
    FileVersion,
    Patience,
    RangesUnusableError,
    TransientError,
    has_changed,
)
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.words import redact, scrub

_BLOCK = 1 << 23


class FsspecFile:
    """A RemoteFile of an fsspec file system; one that cannot seek fetches the whole file itself."""

    def __init__(self, url: str, settings: RemoteSettings) -> None:
        self.shown = redact(url)
        self._may_quote = not {"@", "?"}.intersection(url)  # else its errors may tell a secret
        self._patience = Patience(self.shown, settings)
        self._system, self._path = self._find(url)
        self.version = self._version()
        self.has_ranges = self.version.size is not None
        self.head = self.read(0, min(HEAD_BYTES, self.version.size or HEAD_BYTES))

    def read(self, start: int, length: int) -> bytes:
        """Read a part."""
        data = self._attempt(lambda: self._system.cat_file(self._path, start, start + length))
        if len(data) != length:
            raise SourceError(
                f"{self.shown}: gave {len(data):,} bytes where {length:,} were expected.",
                hint="The file may have changed: run it again.",
            )
        return bytes(data)

    def stream(self, start: int, length: int | None, seen: bytes = b"") -> Iterator[bytes]:
        """Read a part block by block."""
        size = self.version.size
        if size is None:
            raise RangesUnusableError(self.shown, "the store does not tell its size")
        if seen and self.read(start - len(seen), len(seen)) != seen:
            raise RangesUnusableError(self.shown, "the store has other bytes than before")
        last = size if length is None else start + length
        for position in range(start, last, _BLOCK):
            yield self.read(position, min(_BLOCK, last - position))
        if self._version().differs_from(self.version):
            raise has_changed(self.shown, "while it was read", "Run it again.")

    def _find(self, url: str) -> tuple[Any, str]:
        import fsspec

        try:
            system, path = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise SourceError(
                f"{self.shown}: {urlsplit(url).scheme}:// needs a package that is not installed.",
                hint=self._said(error),
            ) from None
        except Exception as error:  # noqa: BLE001 - each file system fails in its own way
            raise self._failed(error) from None
        return system, str(path)

    def _version(self) -> FileVersion:
        info: dict[str, Any] = self._attempt(lambda: self._system.info(self._path))
        if (kind := info.get("type", "file")) == "directory":
            raise SourceError(f"{self.shown}: is a folder.", hint="Give one file inside it.")
        if kind == "other":  # to open a pipe may take for ever
            raise SourceError(f"{self.shown}: is not a regular file.")
        size = info.get("size")
        tag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
        changed = info.get("LastModified") or info.get("mtime") or info.get("created")
        return FileVersion(
            size if isinstance(size, int) else None,
            str(tag) if tag else None,
            str(changed) if changed else None,
        )

    def _attempt(self, action: Any) -> Any:
        """Call a file system, again if it fails for a reason that may pass."""
        with self._patience.running():
            while True:
                self._patience.check_time()
                try:
                    return action()
                except (TimeoutError, ConnectionError) as error:
                    self._patience.wait_after(TransientError(self._said(error)))
                except Exception as error:  # noqa: BLE001 - each file system fails in its own way
                    raise self._failed(error) from None

    def _said(self, error: Exception) -> str:
        return (self._may_quote and scrub(error)) or type(error).__name__

    def _failed(self, error: Exception) -> SourceError:
        if isinstance(error, FileNotFoundError):
            return SourceError(f"{self.shown}: no such file.", hint="Check the address.")
        if isinstance(error, PermissionError):
            return SourceError(
                f"{self.shown}: not allowed.", hint="Check the credentials of this store."
            )
        return SourceError(
            f"{self.shown}: cannot be read ({self._said(error)}).",
            hint="Check the address and the credentials of this store.",
        )
