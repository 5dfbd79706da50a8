"""``collapse-audit info``: what is in a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from collapse_audit.report.columns import text_columns

if TYPE_CHECKING:
    from collapse_audit.checkpoints import CheckpointDescription

_ROWS_SHOWN = 24


@click.command("info")
@click.argument("source")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def info_command(source: str, *, as_json: bool) -> None:
    """Show container, keys and heads of SOURCE, without any mathematics.

    SOURCE is a file of torch.save, safetensors or numpy. Nothing in it is executed.
    """
    from collapse_audit.checkpoints import describe

    description = describe(source)
    if as_json:
        click.echo(json.dumps(description.to_dict(), indent=2))
    else:
        click.echo("\n".join(_lines(description)))


def _lines(description: CheckpointDescription) -> Iterable[str]:
    yield f"{description.spec}: {description.container}, {description.size:,} bytes"
    if description.family:
        yield f"layout of {description.family}"
    yield ""
    yield from text_columns(
        ("module", "tensors", "values"),
        [(module, f"{count:,}", f"{values:,}") for module, count, values in description.tree],
        "< > >",
        most=_ROWS_SHOWN,
    )
    empty = [key for key, count in description.top_level if not count]
    if empty:
        yield f"without tensors: {', '.join(empty)}"
    yield ""
    if not description.heads:
        yield "no prototypes in this file"
        return
    rows = []
    for head in description.heads:
        mark = "*" if (head.name, head.branch) == description.default else ""
        branch = head.branch or "-"
        rows.append((head.name + mark, branch, f"{head.k:,}", str(head.d), head.dtype))
    yield from text_columns(("head", "branch", "K", "D", "dtype"), rows, "< < > > <")
    yield ""
    for head in description.heads:
        yield f"{head.name} ({head.branch or 'one network'}): {', '.join(head.tensor_keys)}"
        if head.aliases:
            yield f"  the same weight: {', '.join(head.aliases)}"
    if description.centre_keys:
        yield f"centre: {', '.join(description.centre_keys)}"
    yield "* audited unless --head or --branch says otherwise"
