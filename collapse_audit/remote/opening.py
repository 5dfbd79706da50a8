"""Open a remote file, whatever its scheme."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from collapse_audit.containers.foreign import WEB_PAGES
from collapse_audit.errors import IntegrityError, SourceError
from collapse_audit.remote.addresses import Remote, address_to_open
from collapse_audit.remote.fsspec_files import FsspecFile
from collapse_audit.remote.http_files import HttpFile
from collapse_audit.remote.remote_files import RemoteFile
from collapse_audit.remote.reporting import Reporter
from collapse_audit.remote.settings import RemoteSettings

T = TypeVar("T")

_PROBE_BYTES = 1024


def open_remote(remote: Remote, url: str, settings: RemoteSettings) -> RemoteFile:
    """Open one address of a file; its first bytes must be those of a file, and its size right."""
    opened = address_to_open(url, settings)
    file: RemoteFile
    if url.startswith("hf://"):
        from huggingface_hub import get_token

        file = HttpFile(opened, settings, get_token())  # the user's own, for the hub only
    elif urlsplit(opened).scheme in {"http", "https"}:
        file = HttpFile(opened, settings)
    else:
        file = FsspecFile(opened, settings)
    if not file.head:
        raise SourceError(
            f"{file.shown}: the file is empty.", hint="Check the address; nothing was stored there."
        )
    if file.head[:1024].lstrip().lower().startswith(WEB_PAGES):
        raise SourceError(
            f"{file.shown}: the server sent a web page, not a checkpoint.",
            hint="Open the address in a browser: it may ask for a login or a click.",
        )
    size = file.version.size
    if size is not None and remote.size is not None and size != remote.size:
        raise IntegrityError(
            f"{file.shown}: has {size:,} bytes, the manifest says {remote.size:,}.",
            hint="The file at this address is another one: report it, or give a local copy.",
        )
    return file


def try_mirrors(remote: Remote, action: Callable[[str], T], reporter: Reporter) -> T:
    """What an action returns for the first address where it works, else the last one's error."""
    for url, following in zip(remote.urls, remote.urls[1:], strict=False):
        try:
            return action(url)
        except SourceError as error:
            reporter.note(f"{error.message} Trying the mirror {Remote('', (following,)).lock_key}.")
    return action(remote.urls[-1])


def sends_true_ranges(file: RemoteFile) -> bool:
    """Whether a part from the middle of the first bytes is what was seen there before."""
    start = len(file.head) // 2
    part = file.head[start : start + _PROBE_BYTES]
    return file.read(start, len(part)) == part
