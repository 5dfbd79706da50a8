"""`collapse-audit reproduce`: published counts beside measured ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collapse_audit.cli.console import explained
from collapse_audit.cli.options import AuditOptions, option_of
from collapse_audit.cli.remote_options import remote_options, reporter

if TYPE_CHECKING:
    from collapse_audit.remote.settings import RemoteSettings


@click.command(
    name="reproduce",
    epilog="""\b
Examples:
  collapse-audit reproduce --family dino
  collapse-audit reproduce --state counts.json --format json""",
)
@click.option("--family", metavar="NAME", help="Only this family, such as dino or swav.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    default="reproduce.json",
    show_default=True,
    metavar="FILE",
    help="Rows measured so far; those in it are not measured again.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "json"]),
    default="markdown",
    show_default=True,
    help="Format of the table on stdout.",
)
@option_of(AuditOptions, "checkpoint_dir")
@remote_options
@click.pass_context
def reproduce_command(
    context: click.Context,
    /,
    *,
    family: str | None,
    state: Path,
    form: str,
    checkpoint_dir: Path | None,
    fetching: RemoteSettings,
) -> None:
    """Audit every checkpoint with a published count, and print published beside measured.

    Each head is fetched in turn, about 70 MB for a DINO head. The state is written after every
    row, so an interrupted run continues where it stopped. Exit code 1 if a row could not be
    measured. The papers fix no counting algorithm, so a difference is not an error.
    """
    from collapse_audit.manifest import load_manifest
    from collapse_audit.reproduction import reproduce, to_document, to_markdown

    entries = [
        entry for entry in load_manifest().filter(family=family, with_head=True) if entry.published
    ]
    rows = reproduce(
        entries, state, fetching, reporter(), checkpoint_dir=checkpoint_dir, explain=explained
    )
    if form == "json":
        click.echo(json.dumps(to_document(rows), indent=2))
    else:
        click.echo(to_markdown(rows))
    if any(row.problem for row in rows):
        context.exit(1)
