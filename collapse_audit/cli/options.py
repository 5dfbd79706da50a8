"""Options that several commands take, bundled into values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from collapse_audit.cli.formats import FORMAT_OF_SUFFIX, FORMATS
from collapse_audit.prototypes import Branch, check_epsilon

F = TypeVar("F", bound=Callable[..., Any])

EPSILON: Final = 0.025  # the default of every command


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """What to measure.

    Attributes:
        epsilon: Cosine distance strictly below which two prototypes are duplicates.
        head: Name of one head; ``None`` for every head of the file.
        branch: Which network, where the method has two.
        checkpoint_dir: Where the files of manifest ids are.
        sweep: Count over several epsilons too.
        nearest: Measure the nearest cosine of every prototype too.
        device: Where to compute; the result is the same everywhere.
    """

    epsilon: float
    head: str | None
    branch: Branch
    checkpoint_dir: Path | None
    sweep: bool
    nearest: bool
    device: str


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """How to print it.

    Attributes:
        form: One of :data:`collapse_audit.cli.formats.FORMATS`.
        output: File to write; ``None`` for stdout.
        progress: Whether progress bars are wanted at all.
    """

    form: str
    output: Path | None
    progress: bool


epsilon_option = click.option(
    "--epsilon",
    type=float,
    default=EPSILON,
    show_default=True,
    callback=lambda _ctx, _option, value: check_epsilon(value),
    help="Cosine distance strictly below which two prototypes are duplicates.",
)
head_option = click.option("--head", metavar="NAME", help="Only this head; all of them by default.")
branch_option = click.option(
    "--branch",
    type=click.Choice(["teacher", "student"]),
    default="teacher",
    show_default=True,
    help="Which network, where a file holds both.",
)
checkpoint_dir_option = click.option(
    "--checkpoint-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where to look for the files of manifest ids.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    help="Where to compute; it changes the time and not the result.",
)


def audit_options(command: F, *, head: Callable[[F], F] = head_option) -> F:
    """Give a command the options of an audit, as one argument named ``audit``.

    Args:
        command: The function behind the command.
        head: What declares ``--head``.

    Returns:
        The command.
    """
    declared = (
        epsilon_option,
        head,
        branch_option,
        checkpoint_dir_option,
        click.option(
            "--sweep/--no-sweep", default=True, help="Count over several epsilons; on by default."
        ),
        click.option(
            "--nearest/--no-nearest", default=True, help="Nearest-cosine quantiles; on by default."
        ),
        device_option,
    )
    names = tuple(field.name for field in fields(AuditOptions))
    return bundled(command, "audit", AuditOptions, declared, names)


def output_options(command: F) -> F:
    """Give a command the options of its output, as one argument named ``output``."""
    declared = (
        format_options(
            FORMATS,
            FORMAT_OF_SUFFIX,
            "Write to FILE instead of stdout: completely or not at all.",
            dir_okay=True,
        ),
        click.option(
            "--progress/--no-progress",
            default=True,
            help="Bars on stderr for work over two seconds.",
        ),
    )
    names = tuple(field.name for field in fields(OutputOptions))
    return bundled(command, "output", OutputOptions, declared, names)


def format_options(
    formats: Iterable[str], suffixes: Mapping[str, str], text: str, *, dir_okay: bool = False
) -> Callable[[F], F]:
    """Give a command --format, --json and -o, as the arguments ``form`` and ``output``.

    A dash is stdout, as no file at all is.

    Args:
        formats: The formats of the command.
        suffixes: Format of each file suffix, for when neither --format nor --json is given.
        text: Help of -o.
        dir_okay: Leave it to the command to refuse a folder.

    Returns:
        The decorator; ``form`` is always one of the formats.
    """
    declared = (
        click.option(
            "--format",
            "form",
            type=click.Choice(list(formats)),
            help="Output format; by default what the name of -o says, else table.",
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
            chosen = _chosen_form(form, as_json, output, suffixes)
            file = None if output == Path("-") else output
            return command(*args, form=chosen, output=file, **values)

        return _declaring(with_form, declared)

    return decorate


def bundled(
    command: F,
    name: str,
    build: Callable[..., Any],
    declared: tuple[Callable[[F], F], ...],
    names: tuple[str, ...],
) -> F:
    """Declare options on a command and hand their values over as one value.

    Args:
        command: The function behind the command.
        name: Name of the argument that it takes.
        build: Makes the argument from the values.
        declared: What ``click.option`` returned, in the order of the help.
        names: Parameters of ``build``.

    Returns:
        The command.
    """

    @wraps(command)
    def taking_values(*args: Any, **values: Any) -> Any:
        value = build(**{key: values.pop(key) for key in names})
        return command(*args, **{name: value}, **values)

    return _declaring(taking_values, declared)


def _declaring(command: Any, declared: tuple[Callable[[F], F], ...]) -> F:
    """The command with options, in the order of the help."""
    for option in reversed(declared):
        command = option(command)
    return command  # type: ignore[no-any-return]


def _chosen_form(
    form: str | None, as_json: bool, output: Path | None, suffixes: Mapping[str, str]
) -> str:
    """Settle the format: --json, --format, the suffix of the file, in this order."""
    if as_json and form not in (None, "json"):
        raise click.UsageError(f"--json and --format {form} contradict each other.")
    implied = suffixes.get(output.suffix.lower(), "table") if output else "table"
    return "json" if as_json else form or implied
