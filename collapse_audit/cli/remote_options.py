"""The options of every command that may fetch something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collapse_audit.cli.console import is_quiet
from collapse_audit.cli.options import bundled

if TYPE_CHECKING:
    from collapse_audit.remote.reporting import Reporter
    from collapse_audit.remote.settings import RemoteSettings


_DECLARED = (
    click.option(
        "--cache-dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Folder of the cache; by default COLLAPSE_AUDIT_CACHE or the platform's cache folder.",
    ),
    click.option(
        "--offline",
        is_flag=True,
        help="Open no connection; COLLAPSE_AUDIT_OFFLINE=1 and HF_HUB_OFFLINE=1 do the same.",
    ),
    click.option(
        "--insecure-http",
        is_flag=True,
        help="Allow http://, where anybody on the way can change the bytes.",
    ),
    click.option(
        "--max-bytes",
        type=click.IntRange(min=1),
        metavar="N",
        help="Largest file to download whole; 50 GB by default.",
    ),
)


def reporter() -> Reporter:
    """Where the running command tells what it fetches: stderr, or nowhere with --quiet."""
    from collapse_audit.remote.reporting import Reporter

    return Reporter(notes=not is_quiet(), bars=not is_quiet())


def _settings(
    cache_dir: Path | None, offline: bool, insecure_http: bool, max_bytes: int | None
) -> RemoteSettings:
    from collapse_audit.remote.settings import RemoteSettings

    settings = RemoteSettings.from_environment(
        cache_dir=cache_dir, offline=offline, insecure_http=insecure_http
    )
    return settings if max_bytes is None else replace(settings, max_bytes=max_bytes)


#: Gives a command the options of remote files, as one argument named ``fetching``.
remote_options = bundled(
    "fetching", _settings, _DECLARED, ("cache_dir", "offline", "insecure_http", "max_bytes")
)
