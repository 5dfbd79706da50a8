"""Open a remote file, whatever its scheme."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from collapse_audit.errors import SourceError
from collapse_audit.remote.addresses import Remote, address_to_open
from collapse_audit.remote.fsspec_files import FsspecFile
from collapse_audit.remote.http_files import HttpFile
from collapse_audit.remote.remote_files import RemoteFile, too_large
from collapse_audit.remote.reporting import Reporter
from collapse_audit.remote.settings import StorageSettings

T = TypeVar("T")

_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")


def open_remote(url: str, settings: StorageSettings) -> RemoteFile:
    """Open one address and look at the first bytes.

    Args:
        url: An address.
        settings: Offline mode, limits and patience.

    Returns:
        The file; nothing but its first bytes has been read.

    Raises:
        SourceError: If it cannot be opened, is empty or too large, or is a web page.
    """  # noqa: DOC501  (too_large makes one)
    opened = address_to_open(url, settings)
    file: RemoteFile
    if urlsplit(opened).scheme in {"http", "https"}:
        file = HttpFile(opened, settings, _hub_token(url))
    else:
        file = FsspecFile(opened, settings)
    if not file.head:
        raise SourceError(
            f"{file.shown}: the file is empty.", hint="Check the address; nothing was stored there."
        )
    if file.head.lstrip().lower().startswith(_PAGE):
        raise SourceError(
            f"{file.shown}: the server sent a web page, not a checkpoint.",
            hint="Open the address in a browser: it may ask for a login or a click.",
        )
    if file.version.size is not None and file.version.size > settings.max_bytes:
        raise too_large(file.shown, file.version.size, settings.max_bytes)
    return file


def try_mirrors(
    remote: Remote,
    action: Callable[[RemoteFile], T],
    settings: StorageSettings,
    reporter: Reporter,
) -> T:
    """Do something with a file at the first of its addresses where that works.

    Args:
        remote: The file.
        action: What to do with it.
        settings: Offline mode, limits and patience.
        reporter: Told when a mirror is taken.

    Returns:
        What the action returns.

    Raises:
        SourceError: That of the last address, if none works.
    """
    for url, following in zip(remote.urls, remote.urls[1:], strict=False):
        try:
            return action(open_remote(url, settings))
        except SourceError as error:
            if settings.offline:
                raise
            reporter.note(f"{error.message} Trying the mirror {Remote('', (following,)).lock_key}.")
    return action(open_remote(remote.urls[-1], settings))


def torch_hub_folder(environ: dict[str, str]) -> Path:
    """Where torch.hub keeps files.

    Args:
        environ: Environment variables.

    Returns:
        ``$TORCH_HOME/hub/checkpoints``, by torch's own rule for the default.
    """
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = environ.get("TORCH_HOME") or str(Path(cache) / "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def _hub_token(url: str) -> str | None:
    """The user's own token, for the hub only."""
    if not url.startswith("hf://"):
        return None
    from huggingface_hub import get_token

    return get_token()
