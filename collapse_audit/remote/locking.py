"""The lock file: what a source was when it was fetched first, and must be ever after."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from collapse_audit.errors import IntegrityError, SourceError
from collapse_audit.files import read_json, write_json
from collapse_audit.remote.addresses import Remote
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.remote.transfers import exclusive

_SCHEMA = "collapse-audit/lock"


def check_and_record(remote: Remote, digests: dict[str, str], settings: RemoteSettings) -> None:
    """Compare what was fetched with the lock file; record what is not in it yet."""
    # digests: SHA-256 of each thing fetched, ``"file"`` or ``"tensor:KEY"``. An IntegrityError with
    # both hashes if something is not what it was; a SourceError if the lock file is damaged.
    path = settings.lock_file.absolute()
    if not _new(remote, digests, _read(path), path):
        return
    # the guard is in the cache, so that nothing but the lock file lies beside a project
    guard = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    with exclusive(settings.cache_dir / "guards" / guard, settings):
        content = _read(path)
        if new := _new(remote, digests, content, path):
            content["sources"].setdefault(remote.lock_key, {}).update(new)
            write_json(path, content)


def _new(
    remote: Remote, digests: dict[str, str], content: dict[str, Any], path: Path
) -> dict[str, str]:
    """What is not recorded yet; what is must be the same."""
    recorded: dict[str, str] = content["sources"].get(remote.lock_key, {})
    for name, digest in digests.items():
        if recorded.get(name, digest) != digest:
            raise IntegrityError(
                f"{remote.name}: {name.removeprefix('tensor:')} has SHA-256 {digest}, "
                f"but was {recorded[name]} when it was fetched first.",
                hint=f"Somebody changed the file. If you trust the new one, remove "
                f"{remote.lock_key!r} from {path.name} and run `collapse-audit cache clear`.",
            )
    return {name: digest for name, digest in digests.items() if name not in recorded}


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"schema": _SCHEMA, "schema_version": 1, "sources": {}}
    content = read_json(path)
    sources = content.get("sources") if content else None
    if not (
        content
        and content.get("schema") == _SCHEMA
        and isinstance(sources, dict)
        and all(isinstance(recorded, dict) for recorded in sources.values())
        and all(isinstance(text, str) for held in sources.values() for text in held.values())
    ):
        raise SourceError(
            f"{path.name}: is not a lock file of collapse-audit.",
            hint="Restore it from version control; removing it gives up its protection.",
        )
    return content
