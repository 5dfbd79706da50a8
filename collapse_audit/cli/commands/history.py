"""`collapse-audit history`: a run at a glance."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import click

from collapse_audit.cli.console import Session, check_output, emit, is_quiet, say
from collapse_audit.cli.formats import table_width
from collapse_audit.cli.options import AuditOptions, OutputOptions, format_options, option_of
from collapse_audit.cli.progress import progress_bars
from collapse_audit.errors import ParameterError, SourceError
from collapse_audit.files import write_atomically
from collapse_audit.history import ONSET_SHARE, RunHistory, audit_history, follow_history
from collapse_audit.prototypes import DEFAULT_EPSILON
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.report.history_text import history_to_table

_FORMATS: Final[dict[str, Callable[[RunHistory], str]]] = {
    "table": str,
    "json": RunHistory.to_json,
    "csv": RunHistory.to_csv,
    "html": RunHistory.to_html,
}
INTERRUPTED: Final = 130
_FIGURES: Final = (".png", ".svg", ".pdf")


@click.command(
    name="history",
    epilog="""\b
Examples:
  collapse-audit history RUN
  collapse-audit history "runs/7/checkpoint*.pth" --jobs 4 -o history.html
  collapse-audit history RUN --follow -o history.json
  collapse-audit history RUN --figure history.pdf

\b
Exit codes: 0 done, 2 nothing could be audited, or with --strict not everything.""",
)
@click.argument("sources", nargs=-1, required=True, metavar="RUN...", type=click.Path())
@option_of(AuditOptions, "epsilon", default=DEFAULT_EPSILON, show_default=True)
@option_of(AuditOptions, "head")
@option_of(AuditOptions, "branch")
@click.option(
    "--onset-share",
    type=float,
    default=ONSET_SHARE,
    show_default=True,
    help="The collapse begins where M / K falls below this share of its maximum and stays there.",
)
@click.option(
    "--jobs", type=int, default=1, show_default=True, help="Checkpoints audited at a time."
)
@click.option(
    "--reuse/--no-reuse", default=True, help="Use and keep results of earlier calls; on by default."
)
@click.option("--strict", is_flag=True, help="Exit with 2 if a checkpoint had to be skipped.")
@click.option(
    "--follow", is_flag=True, help="Keep auditing new checkpoints while the run writes them."
)
@click.option(
    "--settle",
    type=float,
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="With --follow: audit a checkpoint once it has not changed for this long.",
)
@click.option(
    "--idle",
    type=float,
    metavar="SECONDS",
    help="With --follow: stop after this long without a new checkpoint; by default, on Ctrl-C.",
)
@click.option(
    "--figure",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=f"Draw the first head to this file: {', '.join(_FIGURES)}.",
)
@format_options(_FORMATS, "Write to FILE instead of stdout; with --follow after each checkpoint.")
@option_of(AuditOptions, "device")
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where results are kept; by default COLLAPSE_AUDIT_CACHE or the platform's cache folder.",
)
@option_of(OutputOptions, "progress")
@click.pass_context
def history_command(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    *,
    follow: bool,
    settle: float,
    idle: float | None,
    strict: bool,
    figure: Path | None,
    form: str,
    output: Path | None,
    cache_dir: Path | None,
    progress: bool,
    **options: Any,
) -> None:
    """Audit every checkpoint of a run: M over time, where it fell, and which prototypes merged.

    RUN is a folder (checkpoint0040.pth, checkpoint-100/, eval/training_*/..., ckpt/*/,
    epoch=3-step=400.ckpt, ... in the order of step or epoch), a glob, or checkpoints. A damaged one
    is skipped and reported. Results are kept in the cache, so that a later call measures only what
    is new.
    """
    if output is not None:
        check_output(output, sources)
    if figure is not None:
        _check_figure(figure, sources)
    options["settings"] = RemoteSettings.from_environment(cache_dir=cache_dir)
    interrupted = False
    with progress_bars(wanted=progress and not is_quiet()) as options["progress"]:
        if follow:
            found, interrupted = _follow(sources, form, output, settle=settle, idle=idle, **options)
        else:
            found = audit_history(sources, **options)
    if form == "table":
        width = table_width(to_terminal=output is None)
        emit(history_to_table(found.to_dict(), width=width), output)
    else:
        emit(_FORMATS[form](found), output)
    if figure is not None and found.heads:
        _draw(found, figure)
    code = 2 if (strict and found.problems) or not found.heads else 0
    ctx.exit(INTERRUPTED if interrupted else code)


def _follow(
    sources: tuple[str, ...], form: str, output: Path | None, **options: Any
) -> tuple[RunHistory, bool]:
    """The last history of a run, and whether Ctrl-C ended it; one line for each checkpoint."""
    found, told = None, set()
    try:
        for found in follow_history(sources, **options):
            for one in found.checkpoints:
                counts = ", ".join(
                    f"{head.report['name']}: M = {head.report['unique']['greedy']:,} of "
                    f"{head.report['k']:,}"
                    for head in one.heads
                )
                line = str(one.problem) if one.problem else f"{one.file.name}: {counts}"
                if line not in told and not is_quiet():
                    say("note", line, click.get_current_context().ensure_object(Session))
                told.add(line)
            if output is not None:
                emit(_FORMATS[form](found), output)
    except KeyboardInterrupt:
        if found is None:
            raise
        return found, True
    if found is None:
        raise SourceError(f"{sources[0]}: no checkpoint came.", hint="Is it the folder of the run?")
    return found, False


def _check_figure(figure: Path, sources: tuple[str, ...]) -> None:
    """Refuse a figure that could not be written, before the work."""
    check_output(figure, sources, option="--figure")
    if figure.suffix.lower() not in _FIGURES:
        raise ParameterError(f"--figure: {figure}: is none of {', '.join(_FIGURES)}.")


def _draw(found: RunHistory, figure: Path) -> None:
    from matplotlib.figure import Figure

    from collapse_audit.plots.history import plot_history

    file, drawing = BytesIO(), Figure(figsize=(6.0, 4.0), layout="constrained")
    plot_history(found, ax=drawing.add_subplot())
    drawing.savefig(file, format=figure.suffix[1:].lower(), dpi=200)
    write_atomically(figure, file.getvalue())
