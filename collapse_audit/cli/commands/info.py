"""``collapse-audit info``: what is in a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collapse_audit.cli.options import AuditOptions, option_of, source_argument
from collapse_audit.cli.remote_options import remote_options, reporter
from collapse_audit.report.columns import text_columns
from collapse_audit.report.json_text import to_json
from collapse_audit.words import printable

if TYPE_CHECKING:
    from collapse_audit.remote.settings import RemoteSettings
    from collapse_audit.report.info_documents import InfoDocument

_ROWS_SHOWN = 24


@click.command("info")
@source_argument
@click.option("--all", "every", is_flag=True, help="List every matrix, with shape and type.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@option_of(AuditOptions, "checkpoint_dir")
@remote_options
def info_command(
    source: str,
    *,
    every: bool,
    as_json: bool,
    checkpoint_dir: Path | None,
    fetching: RemoteSettings,
) -> None:
    """Show container, keys and heads of SOURCE, without an audit.

    SOURCE is what `audit` takes: a file, a folder that is a checkpoint, an id, or an address. Only
    the index, centres and scales of the file are read, and nothing in it is executed.
    """
    from collapse_audit.sources import describe_source, resolve_source

    resolved = resolve_source(
        source, checkpoint_dir=checkpoint_dir, settings=fetching, reporter=reporter()
    )
    description = describe_source(resolved)
    if as_json:
        click.echo(to_json(description), nl=False)
    else:
        click.echo("\n".join(printable(line, 5000) for line in _lines(description, every=every)))


def _lines(description: InfoDocument, *, every: bool) -> Iterable[str]:
    source, heads = description["source"], description["heads"]
    yield f"{source['spec']}: {description['container']}, {description['size']:,} bytes"
    if source["family"]:
        yield f"layout of {source['family']}"
    yield ""
    yield from text_columns(
        ("module", "tensors", "values"),
        [(m["module"], f"{m['tensors']:,}", f"{m['values']:,}") for m in description["tree"]],
        "< > >",
        most=_ROWS_SHOWN,
    )
    empty = [count["key"] for count in description["top_level"] if not count["tensors"]]
    if empty:
        yield f"without tensors: {', '.join(empty)}"
    yield ""
    if heads:
        yield from _heads(description)
    else:
        yield "no prototypes in this file"
    if every or not heads:
        yield ""
        yield from _matrices(description, most=None if every else _ROWS_SHOWN)
    yield from (f"note: {note}" for note in description["notes"])


def _heads(description: InfoDocument) -> Iterable[str]:
    heads = description["heads"]
    rows = [
        (
            head["name"] + ("*" if head["audited"] else ""),
            head["branch"] or "-",
            f"{head['k']:,}",
            str(head["d"]),
            head["dtype"],
        )
        for head in heads
    ]
    yield from text_columns(("head", "branch", "K", "D", "dtype"), rows, "< < > > <")
    yield ""
    for head in heads:
        network = head["branch"] or "one network"
        yield f"{head['name']} ({network}): {', '.join(head['tensor_keys'])}"
        if head["aliases"]:
            yield f"  the same weight: {', '.join(head['aliases'])}"
        yield from (f"  note: {note}" for note in head["notes"])
    if description["centre_keys"]:
        yield f"centre: {', '.join(description['centre_keys'])}"
    if any(head["audited"] for head in heads):
        yield "* audited unless --head or --branch says otherwise"
    else:
        yield "nothing tells which one holds the prototypes: choose with --head"


def _matrices(description: InfoDocument, *, most: int | None) -> Iterable[str]:
    rows = [
        (matrix["key"], " x ".join(map(str, matrix["shape"])), matrix["dtype"])
        for matrix in description["matrices"]
    ]
    if not rows:
        yield "no matrix in this file"
        return
    yield from text_columns(("matrix", "shape", "dtype"), rows, "< > <", most=most)
    yield "--head KEY takes any of them"
