"""Options that several commands take, bundled into values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from collapse_audit.cli.formats import FORMAT_OF_SUFFIX, FORMATS
from collapse_audit.cli.source_name import SourceName
from collapse_audit.errors import ParameterError
from collapse_audit.prototypes import DEFAULT_EPSILON, Branch, Metric, check_epsilon, check_radius

F = TypeVar("F", bound=Callable[..., Any])

source_argument = click.argument("source", type=SourceName())


def option(**declaration: Any) -> Any:
    """A field of a bundle that is an option by its own name, declared as for ``click.option``."""
    return field(metadata=declaration)


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """What to measure."""

    epsilon: float | None = option(
        type=float,
        show_default=str(DEFAULT_EPSILON),
        callback=lambda _ctx, _option, value: None if value is None else check_epsilon(value),
        help="Cosine distance strictly below which two prototypes are duplicates.",
    )
    metric: Metric = option(
        type=click.Choice(get_args(Metric)),
        default="cosine",
        show_default=True,
        help="Compare directions, or points as the codes of a codebook are.",
    )
    radius: float | None = option(
        type=float,
        show_default="0.2 of the median nearest distance",
        callback=lambda _ctx, _option, value: None if value is None else check_radius(value),
        help="With euclidean, the distance strictly below which two prototypes are duplicates.",
    )
    head: str | None = option(metavar="NAME", help="Only this head; all heads by default.")
    branch: Branch = option(
        type=click.Choice(["teacher", "student"]),
        default="teacher",
        show_default=True,
        help="Which network, where a file holds both.",
    )
    checkpoint_dir: Path | None = option(
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Where to look for the files of manifest ids.",
    )
    sweep: bool = option(default=True, help="Count over several thresholds; on by default.")
    nearest: bool = option(
        default=True, help="Quantiles of the nearest cosine or distance; on by default."
    )
    device: str = option(
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda[:N]",
        help="Where to compute. This changes the time, not the result.",
    )


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How to print it."""

    form: str  # one of :data:`collapse_audit.cli.formats.FORMATS`
    output: Path | None  # file to write; ``None`` for stdout
    groups: Path | None = option(
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Write group and leader of every prototype to this .csv or .npy file.",
    )
    progress: bool = option(default=True, help="Show progress on stderr for work over two seconds.")


def option_of(bundle: type[Any], name: str, **changes: Any) -> Callable[[F], F]:
    """The option of one field of a bundle, for a command that does not take them all."""
    (entry,) = (entry for entry in fields(bundle) if entry.name == name)
    flag = f"--{name.replace('_', '-')}"
    if entry.type == "bool":
        flag += f"/--no-{flag[2:]}"
    return click.option(flag, **{**entry.metadata, **changes})


def options_of(
    bundle: type[Any],
    argument: str,
    *,
    fixed: Mapping[str, Any] | None = None,
    **changes: Mapping[str, Any],
) -> Callable[[F], F]:
    """Give a command the options of a bundle, and the bundle as one argument."""
    # fixed: values of fields that are no options of this command; changes: what it declares
    # otherwise, by field. A field that is no :func:`option` is declared by another decorator.
    given = dict(fixed or {})
    free = [entry for entry in fields(bundle) if entry.name not in given]
    declared = [
        option_of(bundle, entry.name, **changes.get(entry.name, {}))
        for entry in free
        if entry.metadata
    ]
    names = [entry.name for entry in free]
    return bundled(argument, lambda **values: bundle(**values, **given), declared, names)


def bundled(
    argument: str,
    build: Callable[..., Any],
    declared: Sequence[Callable[[F], F]],
    names: Sequence[str],
) -> Callable[[F], F]:
    """Declare options, in the order of the help, and hand on what is built from those named."""

    def decorate(command: F) -> F:
        @wraps(command)
        def taking_values(*args: Any, **values: Any) -> Any:
            value = build(**{name: values.pop(name) for name in names})
            return command(*args, **{argument: value}, **values)

        return _declaring(taking_values, declared)

    return decorate


def _one_head_each(sources: tuple[str, ...], heads: tuple[str, ...]) -> list[tuple[str, Any]]:
    if len(heads) not in (0, 1, len(sources)):
        raise click.UsageError(
            f"--head: {len(heads)} names for {len(sources)} sources. Give one, or one for each."
        )
    given = heads if len(heads) == len(sources) else [*heads, None][:1] * len(sources)
    return list(zip(sources, given, strict=True))


#: Gives a command one or more sources, each with its --head if any, as the argument ``wanted``.
several_sources = bundled(
    "wanted",
    _one_head_each,
    (
        click.argument("sources", type=SourceName(), nargs=-1, required=True, metavar="SOURCE..."),
        click.option(
            "--head",
            "heads",
            multiple=True,
            metavar="NAME",
            help="Only this head; all heads by default. Once for all sources, or once for each.",
        ),
    ),
    ("sources", "heads"),
)


def output_options(command: F) -> F:
    """Give a command the options of its output, as one argument named ``output``."""
    with_form = format_options(
        FORMATS, "Write to FILE instead of stdout: completely or not at all.", dir_okay=True
    )
    return with_form(options_of(OutputOptions, "output")(command))


def format_options(
    formats: Collection[str], text: str, *, dir_okay: bool = False
) -> Callable[[F], F]:
    """Give a command --format, --json and -o, as the arguments ``form`` and ``output``."""
    # The suffix of the file decides where neither --format nor --json is given. A dash is stdout,
    # as no file at all is. dir_okay: it is left to the command to refuse a folder.
    suffixes = {suffix: form for suffix, form in FORMAT_OF_SUFFIX.items() if form in formats}
    declared = (
        click.option(
            "--format",
            "form",
            type=click.Choice(list(formats)),
            help="Output format. By default the file name of -o decides, else table.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Short for --format json."),
        click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path, dir_okay=dir_okay),
            metavar="FILE",
            help=text,
        ),
    )

    def decorate(command: F) -> F:
        @wraps(command)
        def with_form(
            *args: Any, form: str | None, as_json: bool, output: Path | None, **values: Any
        ) -> Any:
            file = None if output == Path("-") else output
            chosen = _chosen_form(form, as_json, file, suffixes)
            return command(*args, form=chosen, output=file, **values)

        return _declaring(with_form, declared)

    return decorate


def _declaring(command: Any, declared: Sequence[Callable[[F], F]]) -> F:
    """The command with options, in the order of the help."""
    for declare in reversed(declared):
        command = declare(command)
    return command  # type: ignore[no-any-return]


def _chosen_form(
    form: str | None, as_json: bool, output: Path | None, suffixes: Mapping[str, str]
) -> str:
    """Settle the format: --json, --format, the suffix of the file, in this order."""
    if as_json and form not in (None, "json"):
        raise click.UsageError(f"--json and --format {form} contradict each other.")
    if as_json or form:
        return form or "json"
    suffix = output.suffix.lower() if output else ""
    if suffix and suffix not in suffixes:
        raise ParameterError(
            f"-o: {output}: this command writes no {suffix}.",
            hint=f"It writes {', '.join(suffixes)}; --format chooses for any other name.",
        )
    return suffixes.get(suffix, "table")
