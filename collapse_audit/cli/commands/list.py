"""`collapse-audit list`: the checkpoints of the manifest."""

import json
from collections.abc import Sequence
from dataclasses import asdict

import click

from collapse_audit.manifest import CheckpointEntry, load_manifest

_HEADINGS = ("id", "family", "backbone", "K", "D", "published M", "evidence")
_RIGHT_ALIGNED = frozenset({"K", "D", "published M"})


@click.command(name="list")
@click.option("--family", metavar="NAME", help="Only this family, such as dino or swav.")
@click.option("--with-head", is_flag=True, help="Only checkpoints whose head file is public.")
@click.option("--json", "as_json", is_flag=True, help="Every field of every row, as JSON.")
def list_command(family: str | None, with_head: bool, as_json: bool) -> None:
    """List the public checkpoints that hold prototypes.

    Each id can be audited: `collapse-audit ID`. K and D are the number of prototypes of a head and
    their dimension; - means unknown. Published M is what papers count; * marks a number quoted by
    others. Evidence that the file holds the head: A somebody opened it, B its authors say so,
    C inferred, N no file is public.
    """
    entries = load_manifest().filter(family=family, with_head=with_head)
    click.echo(_json(entries) if as_json else _table(entries))


def _json(entries: Sequence[CheckpointEntry]) -> str:
    """A list of objects with the fields of the manifest, and the local file name."""
    return json.dumps([asdict(e) | {"file_name": e.file_name} for e in entries], indent=2)


def _table(entries: Sequence[CheckpointEntry]) -> str:
    """Columns as wide as their widest cell; 100 characters hold every row of the manifest."""
    rows = [_HEADINGS, *(_cells(entry) for entry in entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if heading in _RIGHT_ALIGNED else cell.ljust(width)
            for heading, cell, width in zip(_HEADINGS, row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def _cells(entry: CheckpointEntry) -> tuple[str, ...]:
    """One row of the table."""
    published = ", ".join(f"{p.unique}{'*' if p.second_hand else ''}" for p in entry.published)
    cells = (entry.backbone, entry.k, entry.d, published or None)
    return (
        entry.id,
        entry.family,
        *("-" if cell is None else str(cell) for cell in cells),
        entry.evidence,
    )
