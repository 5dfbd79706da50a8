"""`collapse-audit compare`: heads side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import numpy as np

from collapse_audit.cli.console import check_output, emit, is_quiet
from collapse_audit.cli.formats import table_width
from collapse_audit.cli.options import (
    AuditOptions,
    OutputOptions,
    format_options,
    option_of,
    options_of,
    several_sources,
)
from collapse_audit.cli.progress import progress_bars
from collapse_audit.cli.remote_options import remote_options
from collapse_audit.cli.subjects import Opener
from collapse_audit.errors import ParameterError
from collapse_audit.files import write_atomically
from collapse_audit.gate import HeadsSideBySide, compare
from collapse_audit.gate.comparison import Among
from collapse_audit.gate.pairing import DIFFERENCES, Difference
from collapse_audit.report.comparison_text import (
    comparison_to_csv,
    comparison_to_markdown,
    comparison_to_table,
)
from collapse_audit.report.csv_text import rows_to_csv
from collapse_audit.report.documents import ComparisonDocument
from collapse_audit.report.html import comparison_to_html
from collapse_audit.report.json_text import to_json

if TYPE_CHECKING:
    from collapse_audit.matching import Method
    from collapse_audit.remote.settings import RemoteSettings

_FORMATS: Final[dict[str, Callable[[ComparisonDocument], str]]] = {
    "table": comparison_to_table,
    "json": to_json,
    "csv": comparison_to_csv,
    "markdown": comparison_to_markdown,
    "html": comparison_to_html,
}
#: K and branch may always differ between heads side by side.
_ALLOWED: Final = tuple(d for d in DIFFERENCES if d not in ("k", "branch"))


@click.command(
    name="compare",
    epilog="""\b
Examples:
  collapse-audit compare before.safetensors after.safetensors
  collapse-audit compare monday.json tuesday.json -o change.html
  collapse-audit compare epoch10.pth epoch50.pth epoch100.pth --format csv
  collapse-audit compare seed0.pth seed1.pth --match optimal""",
)
@several_sources
@options_of(
    AuditOptions,
    "audit",
    fixed={"sweep": False, "head": None},
    nearest={"help": "Nearest-cosine quantiles."},
)
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(_ALLOWED),
    help="Compare saved reports even if this differs; may be repeated.",
)
@click.option(
    "--pair",
    "pairs",
    multiple=True,
    metavar="A=B",
    help="Compare head A of the first source with head B of the others, and no other heads.",
)
@click.option(
    "--match",
    "matching",
    type=click.Choice(["optimal", "greedy"]),
    help="Match prototypes of heads that share no indices: one to one, or each with its nearest.",
)
@click.option(
    "--among",
    type=click.Choice(["all", "unique"]),
    default="all",
    show_default=True,
    help="Match all prototypes, or one for each group of duplicates.",
)
@click.option(
    "--match-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the partner of each prototype of the first head to this .csv file.",
)
@format_options(_FORMATS, "Write to FILE instead of stdout.")
@option_of(OutputOptions, "progress")
@remote_options
def compare_command(
    wanted: list[tuple[str, str | None]],
    *,
    audit: AuditOptions,
    fetching: RemoteSettings,
    allow: tuple[Difference, ...],
    pairs: tuple[str, ...],
    matching: Method | None,
    among: Among,
    match_file: Path | None,
    form: str,
    output: Path | None,
    progress: bool,
) -> None:
    """Put heads side by side, metric by metric, with the changes from the first.

    Each SOURCE is what `audit` takes, or a saved report (.json, or - for stdin). Heads are paired
    by name, and those without a namesake in their order; the title shows the pairs.

    If both heads are audited here and have the same K, it also says which groups of duplicates
    were split or merged. That compares prototype i with prototype i, so the second head should
    continue the training of the first. For heads that share no indices, such as two seeds, --match
    finds the prototypes that belong together.
    """
    pair = dict(_parse_pair(text) for text in pairs)
    if len(wanted) < 2:
        click.get_current_context().fail("compare needs two sources or more.")
    if output is not None:
        check_output(output, [source for source, _ in wanted])
    if among == "unique" and matching is None:
        click.get_current_context().fail("--among needs --match.")
    if match_file is not None:
        check_output(match_file, [source for source, _ in wanted], option="--match-file")
        _check_match_file(match_file, matching)
    opener = Opener(audit, allow, progress, fetching)
    first, second, *more = (
        replace(opener, options=replace(audit, head=head)).open(source) for source, head in wanted
    )
    with progress_bars(wanted=progress and not is_quiet()) as tell:
        found = compare(
            first,
            second,
            *more,
            allow=allow,
            pair=pair,
            matching=matching,
            among=among,
            progress=tell,
        )
    if match_file is not None:
        write_atomically(match_file, rows_to_csv(list(_partners(found))).encode())
    document = found.to_dict()
    if form == "table":
        text = comparison_to_table(document, width=table_width(to_terminal=output is None))
    else:
        text = _FORMATS[form](document)
    emit(text, output)


def _check_match_file(file: Path, matching: Method | None) -> None:
    """Refuse a file of partners that there will not be, or in another format, before the work."""
    if matching is None:
        raise click.UsageError("--match-file needs --match.")
    if file.suffix.lower() != ".csv":
        raise ParameterError(f"--match-file: {file}: is no .csv.")


def _partners(found: HeadsSideBySide) -> Iterator[dict[str, Any]]:
    """One row for each prototype of the first source and each of the others."""
    for head in found.heads:
        for source, one in zip(found.sources[1:], head.matchings, strict=True):
            table = {"nearest": one.nearest_in_b, "nearest_cosine": one.cosine_to_b}
            if one.partner is not None and one.partner_cosine is not None:
                table |= {"partner": one.partner, "partner_cosine": one.partner_cosine}
            columns = ("source", "head", "branch", "prototype", *table)
            for index, row in enumerate(zip(*map(np.ndarray.tolist, table.values()), strict=True)):
                cells = (source, head.name, head.branch, index, *row)
                yield dict(zip(columns, cells, strict=True))


def _parse_pair(text: str) -> tuple[str, str]:
    name, equals, partner = text.partition("=")
    if not (name and equals and partner):
        raise ParameterError(f"--pair must be NAME=NAME, got {text!r}.")
    return name, partner
