"""`collapse-audit cache`: what has been fetched, whether it is intact, and getting rid of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from collapse_audit.cli.remote_options import remote_options
from collapse_audit.cli.source_name import SourceName
from collapse_audit.report.columns import text_columns
from collapse_audit.words import megabytes

if TYPE_CHECKING:
    from collapse_audit.remote.settings import RemoteSettings


@click.group(name="cache")
def cache_command() -> None:
    """List, verify or clear what has been fetched."""


@cache_command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@remote_options
def list_items(as_json: bool, fetching: RemoteSettings) -> None:
    """List the parts and files of the cache, with size and source."""
    from collapse_audit.remote.maintenance import cache_items

    items = cache_items(fetching)
    if as_json:
        found = [
            {
                "source": item.source,
                "kind": item.kind,
                "part": item.part,
                "size": item.size,
                "sha256": item.sha256 or None,
                "path": item.path.relative_to(fetching.cache_dir).as_posix(),
            }
            for item in items
        ]
        click.echo(json.dumps(found, indent=2))
        return
    rows = [(item.kind, megabytes(item.size), item.source, item.part) for item in items]
    for line in text_columns((), rows, "<6 >14 < <"):
        click.echo(line)
    total = megabytes(sum(item.size for item in items))
    click.echo(f"{len(items)} items, {total}, in {fetching.cache_dir}")


@cache_command.command(name="verify")
@remote_options
@click.pass_context
def verify(context: click.Context, fetching: RemoteSettings) -> None:
    """Compute every checksum again; exit code 1 if something is damaged."""
    from collapse_audit.remote.maintenance import verify_cache

    found = verify_cache(fetching)
    damaged = [(item, problem) for item, problem in found if problem]
    for item, problem in damaged:
        click.echo(f"damaged  {item.source}  {item.part}: {problem}")
    click.echo(f"{len(found) - len(damaged)} of {len(found)} items are intact.")
    if damaged:
        context.exit(1)


@cache_command.command(name="clear")
@click.argument("sources", type=SourceName(), nargs=-1, metavar="[SOURCE...]")
@click.option("--yes", is_flag=True, help="Do not ask.")
@remote_options
def clear(sources: tuple[str, ...], yes: bool, fetching: RemoteSettings) -> None:
    """Remove what was fetched from each SOURCE, or everything.

    Lock files stay: a source that is fetched again must be what it was.
    """
    from collapse_audit.remote.maintenance import clear_cache
    from collapse_audit.sources import find_remote

    remotes = [find_remote(source) for source in sources]
    keys = tuple(remote.key for remote in remotes) or None
    if not yes:
        what = ", ".join(remote.name for remote in remotes) or "everything"
        click.confirm(f"Remove {what} from {fetching.cache_dir}?", abort=True, err=True)
    click.echo(f"{megabytes(clear_cache(fetching, keys))} set free.")
