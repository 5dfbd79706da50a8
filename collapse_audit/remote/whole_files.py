"""Whole files: those the cache holds, those other tools have fetched, and fetching them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from collapse_audit.errors import IntegrityError, SourceError
from collapse_audit.files import is_plain_file, sha256_of
from collapse_audit.remote.addresses import Remote, not_in_cache, parse_hf
from collapse_audit.remote.cache import RANGES, WHOLE, Index, folder_of
from collapse_audit.remote.locking import check_and_record
from collapse_audit.remote.opening import open_remote, try_mirrors
from collapse_audit.remote.remote_files import RangesUnusableError, RemoteFile
from collapse_audit.remote.reporting import Reporter
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.remote.transfers import discard, exclusive, fetch_part, publish
from collapse_audit.words import megabytes, redact


def cached_file(remote: Remote, settings: RemoteSettings) -> tuple[Path, str] | None:
    """The whole file in the cache and its SHA-256; ``None`` if it is not there, or is damaged."""
    folder = folder_of(remote, settings)
    index, name = Index.read(folder, remote.lock_key), f"{WHOLE}/{remote.file_name}"
    path = folder / name
    if index is None or name not in index.files or not is_plain_file(path):
        return None
    digest = index.files[name]
    if remote.sha256 not in {None, digest} or path.stat().st_size != index.version.size:
        return None
    try:
        return (path, digest) if sha256_of(path) == digest else None
    except OSError:  # it cannot be opened
        return None


def file_of_other_tools(remote: Remote, reporter: Reporter) -> Path | None:
    """The whole file, if torch.hub or huggingface_hub has it; their folders are only read."""
    # ``None`` also if it is not the one of the manifest
    path = _in_hf_cache(remote.urls[0])
    if path is None and remote.hub_name is not None:
        candidate = _torch_hub_folder() / remote.hub_name
        path = candidate if candidate.is_file() else None
    if path is None:
        return None
    if remote.size is not None and path.stat().st_size != remote.size:
        reporter.note(f"{path}: has another size than the manifest says; it is not used.")
        return None
    if remote.sha256 is not None and sha256_of(path) != remote.sha256:
        reporter.note(f"{path}: has another SHA-256 than the manifest says; it is not used.")
        return None
    reporter.note(f"{remote.name}: using {path}")
    return path


def fetch_file(
    remote: Remote, settings: RemoteSettings, reporter: Reporter, *, why: str = ""
) -> Path:
    """Fetch the whole file into the cache, unless it is there; ``why`` is for the note."""
    # A SourceError if it cannot be fetched; an IntegrityError if it is not the file of the manifest
    # or of the lock file.
    if held := cached_file(remote, settings):
        return held[0]
    if settings.offline:
        raise not_in_cache(remote.name)

    def fetch(url: str) -> Path:
        with reporter.waiting(f"{remote.name}: waiting for {redact(url)}"):
            file = open_remote(remote, url, settings)
        return _fetch(remote, file, settings, reporter, why)

    with exclusive(folder_of(remote, settings), settings):
        if held := cached_file(remote, settings):  # by another process
            return held[0]
        return try_mirrors(remote, fetch, reporter)


def _fetch(
    remote: Remote, file: RemoteFile, settings: RemoteSettings, reporter: Reporter, why: str
) -> Path:
    size = file.version.size
    reporter.note(
        f"{remote.name}: downloading the whole file, {megabytes(size)}{f' ({why})' if why else ''}"
    )
    folder = folder_of(remote, settings)
    name = f"{WHOLE}/{remote.file_name}"
    path = folder / name
    partial = path.with_name(path.name + ".partial")
    try:
        fetch_part(file, 0, size, partial, settings=settings, reporter=reporter)
    except RangesUnusableError:  # it broke off, and the server cannot go on: from the start again
        fetch_part(file, 0, size, partial, settings=settings, reporter=reporter)
    digest = _check(remote, file, partial, settings)
    version = replace(file.version, size=partial.stat().st_size)
    # the index first: the file passes for complete as soon as it has its name
    Index(remote.lock_key, version, {name: digest}).write(folder)
    publish(partial, path)
    shutil.rmtree(folder / RANGES, ignore_errors=True)  # they are in it, or were lies
    return path


def _check(remote: Remote, file: RemoteFile, partial: Path, settings: RemoteSettings) -> str:
    """The SHA-256 of what has arrived, if it is what it should be; else it is removed."""
    digest = sha256_of(partial)
    if remote.sha256 not in {None, digest}:
        discard(partial)
        raise IntegrityError(
            f"{file.shown}: has SHA-256 {digest}, the manifest says {remote.sha256}; "
            "what was downloaded has been removed.",
            hint="The file has changed or was damaged on the way: run it once more.",
        )
    try:
        check_and_record(remote, {"file": digest}, settings)
    except IntegrityError:
        discard(partial)
        raise
    return digest


def _torch_hub_folder() -> Path:
    """Where torch.hub keeps files: ``$TORCH_HOME/hub/checkpoints``, with torch's own default."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or str(Path(cache) / "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def _in_hf_cache(url: str) -> Path | None:
    """A file of the hub that huggingface_hub has fetched before."""
    if not url.startswith("hf://"):
        return None
    from huggingface_hub import try_to_load_from_cache

    repo, kind, revision, file = parse_hf(url)
    try:
        found = try_to_load_from_cache(repo, file, revision=revision, repo_type=kind)
    except ValueError as error:  # a repository that cannot exist
        raise SourceError(f"{url}: not an address on the hub ({error}).") from None
    return Path(found) if isinstance(found, str) else None
