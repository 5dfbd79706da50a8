"""The options of every command that may fetch something."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collapse_audit.remote import Reporter

F = TypeVar("F", bound=Callable[..., Any])

_DECLARED = (
    click.option(
        "--cache-dir",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Folder of the cache; else COLLAPSE_AUDIT_CACHE, else the platform's cache folder.",
    ),
    click.option(
        "--offline",
        is_flag=True,
        help="Open no connection; COLLAPSE_AUDIT_OFFLINE=1 and HF_HUB_OFFLINE=1 do the same.",
    ),
    click.option(
        "--insecure-http", is_flag=True, help="Allow http://, where anybody can change the bytes."
    ),
    click.option(
        "--max-bytes",
        type=click.IntRange(min=1),
        metavar="N",
        help="Largest file to download whole; 50 GB by default.",
    ),
)


def reporter() -> Reporter:
    """Where the running command tells what it fetches: stderr, or nowhere with --quiet.

    Returns:
        The reporter.
    """
    from collapse_audit.cli.console import Session
    from collapse_audit.remote import Reporter

    quiet = click.get_current_context().ensure_object(Session).quiet
    return Reporter(notes=not quiet, bars=not quiet)


def remote_options(command: F) -> F:
    """Give a command the options of remote files, as one argument named ``fetching``.

    Args:
        command: A function that click will make a command of.

    Returns:
        It, with ``fetching`` a :class:`~collapse_audit.remote.RemoteSettings`.
    """

    @wraps(command)
    def bundled(
        *args: Any,
        cache_dir: Path | None,
        offline: bool,
        insecure_http: bool,
        max_bytes: int | None,
        **values: Any,
    ) -> Any:
        from dataclasses import replace

        from collapse_audit.remote import RemoteSettings

        settings = RemoteSettings.from_environment(
            cache_dir=cache_dir, offline=offline, insecure_http=insecure_http
        )
        if max_bytes is not None:
            settings = replace(settings, max_bytes=max_bytes)
        return command(*args, fetching=settings, **values)

    wrapped: Any = bundled
    for option in reversed(_DECLARED):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]
