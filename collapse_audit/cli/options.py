"""Options that several commands take, bundled into values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from collapse_audit.cli.formats import FORMAT_OF_SUFFIX, FORMATS
from collapse_audit.prototypes import Branch, check_epsilon

F = TypeVar("F", bound=Callable[..., Any])


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


device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    help="Where to compute; it changes the time and not the result.",
)


def audit_options(command: F, *, head: str = "Only this head; all of them by default.") -> F:
    """Give a command the options of an audit, as one argument named ``audit``.

    Args:
        command: The function behind the command.
        head: Help of ``--head``.

    Returns:
        The command.
    """
    declared = (
        click.option(
            "--epsilon",
            type=float,
            default=0.025,
            show_default=True,
            callback=lambda _ctx, _option, value: check_epsilon(value),
            help="Cosine distance strictly below which two prototypes are duplicates.",
        ),
        click.option("--head", metavar="NAME", help=head),
        click.option(
            "--branch",
            type=click.Choice(["teacher", "student"]),
            default="teacher",
            show_default=True,
            help="Which network, where the file holds both.",
        ),
        click.option(
            "--checkpoint-dir",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Where to look for the files of manifest ids.",
        ),
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
        click.option(
            "--format",
            "form",
            type=click.Choice(list(FORMATS)),
            help="Output format; by default what the name of -o says, else table.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Short for --format json."),
        click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Write to FILE instead of stdout: completely or not at all.",
        ),
        click.option(
            "--progress/--no-progress",
            default=True,
            help="Bars on stderr for work over two seconds.",
        ),
    )
    return bundled(command, "output", _output, declared, ("form", "as_json", "output", "progress"))


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

    wrapped: Any = taking_values
    for option in reversed(declared):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


def _output(
    *, form: str | None, as_json: bool, output: Path | None, progress: bool
) -> OutputOptions:
    """Settle the format: --json, --format, the suffix of the file, in this order."""
    if as_json and form not in (None, "json"):
        raise click.UsageError(f"--json and --format {form} contradict each other.")
    if output == Path("-"):
        output = None
    implied = FORMAT_OF_SUFFIX.get(output.suffix.lower(), "table") if output else "table"
    return OutputOptions("json" if as_json else form or implied, output, progress)
