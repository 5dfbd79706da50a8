"""What the user typed or the manifest says -> addresses to fetch and a name fit for print."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from collapse_audit.errors import SourceError
from collapse_audit.manifest import CheckpointEntry
from collapse_audit.manifest.entries import base_name, fetch_hint
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.words import printable, redact

_SCHEME = re.compile(r"(?:[a-zA-Z0-9+.-]*::)*[a-zA-Z][a-zA-Z0-9+.-]+://|(?i:https?:/)")
_HF = re.compile(
    r"(?:(?P<kind>datasets|spaces)/)?(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<file>.+)"
)


@dataclass(frozen=True, slots=True)
class Remote:
    """A file somewhere else."""

    name: str  # in messages and reports: a manifest id, or an address without credentials and query
    urls: tuple[str, ...]  # where it is; those after the first are mirrors
    sha256: str | None = None  # where the manifest knows it; enforced
    size: int | None = None  # in bytes, likewise
    # file name under which torch.hub would have saved it, if only this file has it
    hub_name: str | None = None

    @property
    def key(self) -> str:
        """Name of its folder in the cache: readable, and different for different addresses."""
        digest = hashlib.sha256(self.identity.encode()).hexdigest()[:12]
        readable = re.sub(r"[^A-Za-z0-9]+", "_", self.name.rpartition("://")[2]).strip("_")
        return f"{readable[-48:]}-{digest}"

    @property
    def identity(self) -> str:
        """The address that tells files apart; its query counts, for it may choose the file."""
        return self.urls[0].partition("#")[0]

    @property
    def lock_key(self) -> str:
        """Its key in a lock file: the address, and a digest in place of a query."""
        shown = redact(self.identity)
        query = urlsplit(self.identity).query
        return f"{shown}?{hashlib.sha256(query.encode()).hexdigest()[:12]}" if query else shown

    @property
    def file_name(self) -> str:
        """The file name at the end of the address, made safe for a local folder."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", base_name(self.urls[0]))
        return name[-80:].lstrip(".") or "checkpoint"

    def sibling(self, name: str) -> Remote:
        """A file of the same folder (never out of it), of which the manifest says nothing."""
        if name in {"", ".", ".."} or not set(name).isdisjoint("/\\"):
            raise SourceError(
                f"{self.name}: names {printable(name)!r} as a file of its folder.",
                hint="Only files beside it are fetched: the file is damaged or made to deceive.",
            )
        urls = tuple(_beside(url, name) for url in self.urls)
        return Remote(redact(urls[0]) if is_remote(self.name) else f"{self.name}/{name}", urls)


def is_remote(source: str | Path) -> bool:
    """Whether a source is ``scheme://...``, of two letters or more (``C:`` is a drive)."""
    # also ``https:/...``, which is mistyped: as a path it would be printed with its password
    return isinstance(source, str) and _SCHEME.match(source) is not None


def remote_of_url(url: str) -> Remote:
    """The file of an address, named by it, redacted; a SourceError if that names no file."""
    # ``https://``, ``hf://org/repo[@revision]/file``, or any scheme fsspec knows
    scheme, mark, rest = url.partition("://")
    if not mark:
        raise SourceError(
            f"{redact(url)}: an address with one slash.", hint="Write https://HOST/FILE."
        )
    url = scheme.lower() + mark + rest
    web = scheme.lower() in {"http", "https", "hf"}
    if "::" in url and not (web and "://" not in url.partition("::")[2]):  # [::1] is a server
        raise SourceError(
            "An address that is a chain of several, joined by two colons, is not opened.",
            hint="Fetch and unpack the file first, and give its path.",
        )
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise SourceError(
            f"{redact(url)}: not an address.", hint="Write %2F %3F %23 for / ? # in a password."
        ) from None
    if parts.netloc.rpartition("@")[2] != urlsplit(redact(url)).netloc:
        raise SourceError(
            f"{redact(url)}: an @ behind the server.",
            hint="Write %40 for one in a path, and %2F %3F %23 for / ? # in a password.",
        )
    if not base_name(url) or (parts.scheme in {"http", "https"} and not parts.hostname):
        raise SourceError(
            f"{redact(url)}: names no file.", hint="Give the address of the checkpoint itself."
        )
    return Remote(name=redact(url), urls=(url,))


def remote_of_entry(entry: CheckpointEntry) -> Remote:
    """Address, mirrors and checksum of a manifest row, named by its id."""
    # a SourceError if nothing is public, it must be fetched by hand, or its query is not set
    if entry.url is None or entry.fetch != "http":
        raise SourceError(
            f"{entry.id}: cannot be fetched automatically.",
            hint=fetch_hint(entry, "the folder given as `checkpoint_dir=FOLDER`"),
        )
    query = ""
    if entry.query_env is not None:
        query = os.environ.get(entry.query_env, "").lstrip("?")
        if not query:
            raise SourceError(
                f"{entry.id}: its address needs a query string, and {entry.query_env} is not set.",
                hint=f"{entry.source} prints it: set {entry.query_env} to it.",
            )
    # In the fragment the query is sent, but is no part of the identity: signatures change.
    urls = tuple(f"{url}#?{query}" if query else url for url in (entry.url, *entry.mirrors))
    return Remote(
        name=entry.id, urls=urls, sha256=entry.sha256, size=entry.size, hub_name=entry.original_name
    )


def not_in_cache(name: str) -> SourceError:
    """The error for what offline mode does not allow to fetch."""
    return SourceError(
        f"{name}: not in the cache, and offline mode is on.",
        hint="Run `collapse-audit download` where there is a network, or leave `offline=True` "
        "(COLLAPSE_AUDIT_OFFLINE, HF_HUB_OFFLINE) out.",
    )


def address_to_open(url: str, settings: RemoteSettings) -> str:
    """The address that a connection is made to, its query included, if that is allowed."""
    if settings.offline:
        raise not_in_cache(redact(url))
    base, _, fragment = url.partition("#")
    url = base + fragment if fragment.startswith("?") else base
    if url.startswith("hf://"):
        from huggingface_hub import hf_hub_url

        repo, kind, revision, file = parse_hf(url)
        url = hf_hub_url(repo, file, repo_type=kind, revision=revision)
    if urlsplit(url).scheme == "http" and not settings.insecure_http:
        raise SourceError(
            f"{redact(url)}: plain http is refused, for anybody on the way can change the file.",
            hint="Use https://, or allow it with `insecure_http=True`.",
        )
    return url


def parse_hf(url: str) -> tuple[str, str | None, str | None, str]:
    """Repository, its type and revision (``None``: the default) and file of a hub address."""
    match = _HF.fullmatch(url.removeprefix("hf://").partition("?")[0])
    if match is None:
        raise SourceError(
            f"{redact(url)}: not an address on the Hugging Face hub.",
            hint="Write hf://ORG/REPO/FILE or hf://ORG/REPO@REVISION/FILE.",
        )
    kind = match["kind"].removesuffix("s") if match["kind"] else None
    return match["repo"], kind, match["revision"], match["file"]


def _beside(url: str, name: str) -> str:
    """An address with the last part of its path replaced."""
    path = re.split(r"[?#]", url, maxsplit=1)[0]
    web = url.startswith(("http://", "https://"))
    return f"{path.rpartition('/')[0]}/{quote(name) if web else name}{url[len(path) :]}"
