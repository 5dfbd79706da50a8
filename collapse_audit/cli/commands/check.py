"""`collapse-audit check`: fail where a head got worse."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from collapse_audit.cli.console import Session, check_output, emit, explained, is_quiet, say
from collapse_audit.cli.options import (
    AuditOptions,
    OutputOptions,
    format_options,
    option_of,
    source_argument,
)
from collapse_audit.cli.progress import progress_bars
from collapse_audit.cli.remote_options import remote_options
from collapse_audit.cli.subjects import Opener, refuse_same_file
from collapse_audit.errors import CollapseAuditError, ParameterError, ReportError
from collapse_audit.gate import Verdict, check
from collapse_audit.gate.checking import require_gates
from collapse_audit.gate.files import read_report, write_report
from collapse_audit.gate.pairing import DIFFERENCES, Difference
from collapse_audit.gate.settings import MISSING_BASELINE, find_settings, read_settings
from collapse_audit.gate.subjects import document_of
from collapse_audit.gate.thresholds import Change, Threshold, parse_threshold
from collapse_audit.history import audit_history
from collapse_audit.prototypes import DEFAULT_EPSILON, Metric, check_metric
from collapse_audit.report.documents import VerdictDocument
from collapse_audit.report.github import error_to_github, verdict_to_github
from collapse_audit.report.json_text import to_json
from collapse_audit.report.junit import error_to_junit, verdict_to_junit
from collapse_audit.report.verdict_text import verdict_to_markdown, verdict_to_table
from collapse_audit.words import scrub

if TYPE_CHECKING:
    from collapse_audit.history import RunHistory
    from collapse_audit.remote.settings import RemoteSettings
    from collapse_audit.similarity import Progress

_SUMMARY: Final = "GITHUB_STEP_SUMMARY"
_UPDATE: Final = "Or replace the baseline with --update-baseline."
_YES: Final = "Add --yes to replace it all the same."

_FORMATS: Final[dict[str, Callable[[VerdictDocument], str]]] = {
    "table": verdict_to_table,
    "json": to_json,
    "markdown": verdict_to_markdown,
    "junit": verdict_to_junit,
    "github": verdict_to_github,
}
#: Formats that a CI system reads also if there is no verdict; JSON is the entry point's own.
_ERROR_FORMATS: Final = {"junit": error_to_junit, "github": error_to_github}


@click.command(
    name="check",
    epilog="""\b
Examples:
  collapse-audit check head.safetensors --fail-on "unique_fraction<0.9"
  collapse-audit check head.safetensors --baseline baseline.json
  collapse-audit check new.json --baseline old.json --fail-on "unique_fraction:-5%"
  collapse-audit check run/checkpoint.pth --baseline baseline.json --update-baseline
  collapse-audit check run --fail-on "trend.unique_fraction:-5%"

\b
Thresholds:
  metric:-5%   fails if it falls by more than 5 % of the baseline
  metric:+0    fails if it rises at all
  metric:0.01  fails if it gets worse by more than 0.01
  metric<0.9   fails if it is below 0.9; needs no baseline; also <= > >=
  trend.metric:-5%  fails if it falls by more than 5 % from one checkpoint of a run to the next

\b
Exit codes: 0 all checks passed, 1 one failed, 2 no verdict.""",
)
@source_argument
@click.option(
    "--baseline",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Report to compare with, as --format json writes it.",
)
@click.option(
    "--fail-on",
    multiple=True,
    metavar="THRESHOLD",
    help="When to fail; may be repeated. By default, if M falls or the largest group grows.",
)
@click.option(
    "--missing-baseline",
    type=click.Choice(MISSING_BASELINE),
    help="If the baseline file does not exist: fail (default), create it, or skip what needs it.",
)
@click.option(
    "--update-baseline",
    is_flag=True,
    help="Make this report the new baseline, unless a limit fails.",
)
@click.option(
    "-y",
    "--yes",
    is_flag=True,
    help="With --update-baseline: even if the head got worse; absolute limits must still hold.",
)
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(DIFFERENCES),
    help="Compare even if this differs between report and baseline; may be repeated.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Settings file; by default the nearest collapse-audit.toml or pyproject.toml with any.",
)
@click.option(
    "--epsilon",
    type=float,
    help=f"Cosine distance strictly below which two are duplicates; {DEFAULT_EPSILON} by default.",
)
@option_of(AuditOptions, "metric")
@option_of(AuditOptions, "radius")
@option_of(AuditOptions, "head")
@option_of(AuditOptions, "branch")
@option_of(AuditOptions, "checkpoint_dir")
@format_options(_FORMATS, "Write the verdict to FILE instead of stdout.")
@click.option("--exit-zero", is_flag=True, help="Report failed checks, but exit with 0.")
@option_of(AuditOptions, "device")
@option_of(OutputOptions, "progress")
@remote_options
@click.pass_context
def check_command(
    ctx: click.Context,
    /,
    source: str,
    *,
    form: str,
    output: Path | None,
    exit_zero: bool,
    **given: Any,
) -> None:
    """Check that a head is not worse than a baseline, or than absolute limits.

    SOURCE is what `audit` takes, or a saved report (.json, or - for stdin), which needs no weights.
    It can also be the folder or a glob of a run: then its newest checkpoint is checked. Settings
    come from [tool.collapse-audit.check] in pyproject.toml, or [check] in collapse-audit.toml;
    options override them.
    """
    if output is not None:
        check_output(output, [source])
    with _errors_in(form, output):
        verdict, written = _run(source, **given)
    document = verdict.to_dict()
    emit(_FORMATS[form](document), output)
    session = ctx.ensure_object(Session)
    if form == "github":
        _append_summary(verdict_to_markdown(document), session)
    if written is not None and not session.quiet:
        say("note", f"{written} is now the baseline.", session)
    elif given["update_baseline"] and not session.quiet:
        say("note", f"the baseline is kept. {'' if given['yes'] else _YES}".rstrip(), session)
    ctx.exit(0 if exit_zero else verdict.exit_code)


def _run(
    source: str,
    *,
    baseline: Path | None,
    fail_on: tuple[str, ...],
    missing_baseline: str | None,
    update_baseline: bool,
    yes: bool,
    allow: tuple[Difference, ...],
    config: Path | None,
    epsilon: float | None,
    metric: Metric,
    radius: float | None,
    fetching: RemoteSettings,
    progress: bool,
    **audit: Any,
) -> tuple[Verdict, Path | None]:
    """The verdict, and the baseline file if it was written."""
    settings = find_settings(Path.cwd()) if config is None else read_settings(config)
    baseline = baseline or settings.baseline
    missing = missing_baseline or settings.missing_baseline or "fail"
    thresholds = tuple(parse_threshold(text) for text in fail_on or settings.fail_on)
    # what could only fail after the work is refused before it
    if yes and not update_baseline:
        raise ParameterError("--yes needs --update-baseline.")
    if update_baseline and baseline is None:
        raise ParameterError("--update-baseline needs --baseline FILE.")
    if update_baseline and baseline is not None and baseline.exists() and not baseline.is_file():
        raise ParameterError(f"--update-baseline: {baseline} is no regular file.")
    if baseline is not None:
        refuse_same_file(source, baseline)
    else:
        require_gates(thresholds)
    if epsilon is None and metric == "cosine":
        epsilon = settings.epsilon
    check_metric(metric, epsilon, radius)
    writes = update_baseline or missing == "create"
    options = AuditOptions(
        epsilon=epsilon,
        metric=metric,
        radius=radius,
        # a baseline is a full report; a check measures what its thresholds ask for
        sweep=writes or _asks_for(thresholds, "sweep"),
        nearest=writes or _asks_for(thresholds, "nearest_cosine", "exact_duplicates"),
        **audit,
    )
    opener = Opener(options, allow or settings.allow, progress, fetching)
    old = None
    if baseline is not None and baseline.exists():
        with _unless_replaced(update_baseline, yes):
            old = read_report(baseline, allow=opener.allow)
    elif baseline is not None and not writes and missing == "fail":
        raise _no_baseline(source, baseline)
    run = None
    if any(isinstance(threshold, Change) and threshold.trend for threshold in thresholds):
        with progress_bars(wanted=progress and not is_quiet()) as bars:
            run = _history(source, options, fetching, bars)
    report = document_of(opener.open(source))
    verdict = check(report, None, thresholds, skip_changes=baseline is not None, run=run)
    if old is not None:
        with _unless_replaced(update_baseline, yes, _UPDATE):
            verdict = check(report, old, thresholds, allow=opener.allow, run=run)
    if update_baseline and yes:
        verdict = verdict.accepted()
    kept = old is not None and not update_baseline
    if baseline is None or kept or not writes or not verdict.passed:
        return verdict, None
    write_report(report, baseline)
    return verdict, baseline


def _history(
    source: str, options: AuditOptions, fetching: RemoteSettings, progress: Progress
) -> RunHistory:
    """The run that a trend is of."""
    if options.metric != "cosine":
        raise ParameterError("a trend is measured in the cosine metric only.")
    return audit_history(
        source,
        epsilon=DEFAULT_EPSILON if options.epsilon is None else options.epsilon,
        head=options.head,
        branch=options.branch,
        device=options.device,
        settings=fetching,
        progress=progress,
    )


def _no_baseline(source: str, baseline: Path) -> ReportError:
    command = ["collapse-audit", "check", scrub(source), "--baseline", str(baseline)]
    return ReportError(
        f"{baseline}: there is no baseline yet.",
        hint=f"Create it with: {shlex.join(command)} --update-baseline",
    )


@contextmanager
def _unless_replaced(update: bool, yes: bool, advice: str = "") -> Iterator[None]:
    """Pass an error of the baseline on, unless it is to be replaced whatever it holds."""
    try:
        yield
    except ReportError as error:
        hint = _YES if update else f"{error.hint} {advice}".strip()
        if not (update and yes):
            raise ReportError(error.message, hint=hint) from error


@contextmanager
def _errors_in(form: str, output: Path | None) -> Iterator[None]:
    """Tell a CI system about an input error in its own format too, and pass the error on."""
    try:
        yield
    except CollapseAuditError as error:
        if form in _ERROR_FORMATS:
            emit(_ERROR_FORMATS[form](explained(error)), output)
        raise


def _asks_for(thresholds: Iterable[Threshold], *groups: str) -> bool:
    return any(threshold.metric.group in groups for threshold in thresholds)


def _append_summary(markdown: str, session: Session) -> None:
    """Add to the page that GitHub shows for the step, if it asks for one."""
    if path := os.environ.get(_SUMMARY):
        try:
            with Path(path).open("a", encoding="utf-8") as stream:
                stream.write(markdown + "\n")
        except OSError as error:  # the verdict stands without it
            say("note", f"no step summary: {path}: {error.strerror}.", session)
