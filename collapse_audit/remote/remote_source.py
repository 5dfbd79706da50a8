"""A remote file as the readers of containers want it: bytes that can be read in parts."""

from __future__ import annotations

from pathlib import Path

from collapse_audit.containers.byte_source import LocalFile
from collapse_audit.errors import SourceError
from collapse_audit.remote.addresses import Remote, not_in_cache
from collapse_audit.remote.cache import RangeCache
from collapse_audit.remote.opening import open_remote, sends_true_ranges, try_mirrors
from collapse_audit.remote.remote_files import RangesUnusableError, RemoteFile, has_changed
from collapse_audit.remote.reporting import SILENT, Reporter
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.remote.transfers import exclusive, fetch_part
from collapse_audit.remote.whole_files import cached_file, fetch_file, file_of_other_tools
from collapse_audit.words import redact

_BAR_FROM_BYTES = 1 << 20


def open_source(remote: Remote, settings: RemoteSettings, reporter: Reporter) -> RemoteSource:
    """Open a remote file; of a file that is not in a cache yet the first bytes are fetched."""
    # Files whose SHA-256 the manifest knows are fetched whole, for only the whole file can be
    # compared with it; so are those of servers that cannot send a part of a file. A SourceError if
    # it cannot be fetched; an IntegrityError if it is not the file of the manifest or of the lock
    # file.
    with reporter.waiting(f"{remote.name}: comparing the cached file with its SHA-256"):
        path, digest = cached_file(remote, settings) or (
            file_of_other_tools(remote, reporter),
            None,
        )
    if path is None and remote.sha256 is not None:
        path = fetch_file(remote, settings, reporter, why="its SHA-256 is to be verified")
    return RemoteSource(remote, settings, reporter, path, digest)


class RemoteSource:
    """A remote file as a ByteSource; what was read is kept in the cache."""

    # ``local`` is the whole file if it is on this machine, ``sha256`` its checksum once computed

    def __init__(
        self,
        remote: Remote,
        settings: RemoteSettings,
        reporter: Reporter,
        path: Path | None,
        sha256: str | None = None,
    ) -> None:
        self.remote = remote
        self.sha256 = sha256
        self._settings = settings
        self._reporter = reporter
        self._cache = RangeCache(remote, settings)
        self._files: dict[str, RemoteFile] = {}
        self.local = LocalFile(path) if path else None
        self._read(0, 0)
        self.size = self.local.size if self.local else self._cache.version.size or 0

    def read(self, start: int, n: int) -> bytes:
        """Exactly ``n`` bytes from ``start`` on, from the cache or the server, or a SourceError."""
        if not 0 <= start <= start + n <= self.size:
            raise SourceError(
                f"{self.remote.name}: has {self.size:,} bytes, but {n:,} from {start:,} on were "
                "asked for.",
                hint="The file is damaged: compare its size with the source.",
            )
        return self._read(start, n)

    def sibling(self, name: str) -> RemoteSource:
        """Open a file of the same folder, as :func:`open_source` does."""
        return open_source(self.remote.sibling(name), self._settings, self._reporter)

    def _read(self, start: int, n: int) -> bytes:
        """Read a part that exists; without true ranges, the whole file is fetched first."""
        if self.local is None:
            try:
                data = self._cache.read(start, n)
                return self._fetch(start, n) if data is None else data
            except RangesUnusableError as error:
                path = fetch_file(self.remote, self._settings, self._reporter, why=error.why)
                self.local = LocalFile(path)
        return self.local.read(start, n)

    def _fetch(self, start: int, n: int) -> bytes:
        """Fetch what the cache lacks of a part."""
        if self._settings.offline:
            raise not_in_cache(self.remote.name)
        with exclusive(self._cache.folder, self._settings):
            self._cache.reload()
            data = self._cache.read(start, n)
            if data is None:
                try_mirrors(self.remote, lambda url: self._bring(url, start, n), self._reporter)
                data = self._cache.read(start, n)
        if data is None:
            raise SourceError(
                f"{self.remote.name}: the cache does not keep what is written to it.",
                hint="Check the disk, or choose another folder with `cache_dir=FOLDER`.",
            )
        return data

    def _bring(self, url: str, start: int, n: int) -> None:
        """Fetch what the cache lacks of a part from one address."""
        file = self._files.get(url)
        if file is None:
            with self._reporter.waiting(f"{self.remote.name}: waiting for {redact(url)}"):
                file = open_remote(self.remote, url, self._settings)
        stored = self._cache.read(0, len(file.head))
        if file.version.differs_from(self._cache.version) or stored not in {None, file.head}:
            raise has_changed(
                file.shown,
                "since it was read first",
                "To take the new file, run `collapse-audit cache clear` first.",
            )
        if url not in self._files and len(file.head) != file.version.size:
            if not file.has_ranges:
                raise RangesUnusableError(file.shown, "the server does not send parts of it")
            if not sends_true_ranges(file):
                raise RangesUnusableError(file.shown, "the server sends wrong parts of it")
        self._files[url] = file
        if self._cache.version.size is None:
            self._cache.begin(file.version, file.head)
        for first, length in self._cache.missing(start, n):
            partial = self._cache.path(first, length).with_suffix(".partial")
            reporter = self._reporter if length > _BAR_FROM_BYTES else SILENT
            fetch_part(file, first, length, partial, settings=self._settings, reporter=reporter)
            self._cache.add(first, length, partial)
