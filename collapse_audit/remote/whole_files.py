"""Whole files: those the cache holds, those other tools have fetched, and fetching them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from collapse_audit.errors import IntegrityError, SourceError
from collapse_audit.remote.addresses import Remote, parse_hf
from collapse_audit.remote.locking import check_and_record
from collapse_audit.remote.opening import torch_hub_folder, try_mirrors
from collapse_audit.remote.remote_files import RangesUnusableError, RemoteFile
from collapse_audit.remote.reporting import Reporter, megabytes
from collapse_audit.remote.settings import StorageSettings
from collapse_audit.remote.writing import (
    discard,
    exclusive,
    fetch_part,
    publish,
    read_json,
    sha256_of,
    write_json,
)

PROVENANCE = "provenance.json"


def cached_file(remote: Remote, settings: StorageSettings) -> Path | None:
    """The whole file, if the cache holds it.

    Args:
        remote: The file.
        settings: Where the cache is.

    Returns:
        Its path; ``None`` if it is not there or was never completed.
    """
    path = _folder(remote, settings) / remote.file_name
    provenance = read_json(path.with_name(PROVENANCE))
    if provenance is None or not path.is_file():
        return None
    return path if path.stat().st_size == provenance.get("size") else None


def file_of_other_tools(remote: Remote, reporter: Reporter) -> Path | None:
    """The whole file, if torch.hub or huggingface_hub has fetched it; their folders are only read.

    Args:
        remote: The file.
        reporter: Told which file is used.

    Returns:
        Its path; ``None`` if it is not there, or is not the one of the manifest.

    """
    path = _in_hf_cache(remote.urls[0])
    if path is None and remote.hub_name is not None:
        candidate = torch_hub_folder(dict(os.environ)) / remote.hub_name
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
    remote: Remote, settings: StorageSettings, reporter: Reporter, *, why: str = ""
) -> Path:
    """Fetch the whole file into the cache, unless it is there.

    Args:
        remote: The file.
        settings: Cache, limits and patience.
        reporter: Told the size before the transfer begins.
        why: Reason for the whole file, for the note.

    Returns:
        Its path.

    Raises:
        SourceError: If it cannot be fetched.
        IntegrityError: If it is not the file of the manifest or of the lock file.
    """
    folder = _folder(remote, settings)
    if settings.offline and (path := cached_file(remote, settings)):
        return path
    with exclusive(folder, settings):
        if path := cached_file(remote, settings):
            return path
        return try_mirrors(
            remote,
            lambda file: _fetch(
                remote, file, folder, settings=settings, reporter=reporter, why=why
            ),
            settings,
            reporter,
        )


def _fetch(
    remote: Remote,
    file: RemoteFile,
    folder: Path,
    *,
    settings: StorageSettings,
    reporter: Reporter,
    why: str,
) -> Path:
    size = file.version.size
    if remote.size is not None and size is not None and size != remote.size:
        raise IntegrityError(
            f"{file.shown}: has {size:,} bytes, the manifest says {remote.size:,}.",
            hint="The file at this address is another one: report it, or give a local copy.",
        )
    reporter.note(
        f"{remote.name}: downloading the whole file, {megabytes(size)}{f' ({why})' if why else ''}"
    )
    path = folder / remote.file_name
    partial = path.with_name(path.name + ".partial")
    try:
        fetch_part(file, 0, size, partial, settings=settings, reporter=reporter)
    except RangesUnusableError:  # it broke off, and the server cannot go on: from the start again
        discard(partial)
        fetch_part(file, 0, size, partial, settings=settings, reporter=reporter)
    digest = _check(remote, file, partial, settings)
    provenance = {
        "source": remote.lock_key,
        "name": remote.name,
        "size": partial.stat().st_size,
        "etag": file.version.etag,
        "modified": file.version.modified,
        "sha256": digest,
    }
    # the provenance first: the file passes for complete as soon as it has its name
    write_json(path.with_name(PROVENANCE), provenance)
    publish(partial, path)
    return path


def _check(remote: Remote, file: RemoteFile, partial: Path, settings: StorageSettings) -> str:
    """The SHA-256 of what has arrived, if it is what it should be; else it is removed."""
    with partial.open("rb") as arrived:
        digest = hashlib.file_digest(arrived, "sha256").hexdigest()
    if remote.sha256 is not None and digest != remote.sha256:
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


def _folder(remote: Remote, settings: StorageSettings) -> Path:
    return settings.cache_dir / "files" / remote.key


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
