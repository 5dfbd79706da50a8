"""Where text goes: results to stdout or a file, everything else to stderr."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import click

from collapse_audit.errors import CollapseAuditError, ParameterError, SourceError
from collapse_audit.files import write_atomically
from collapse_audit.words import printable, redact_paths, scrub

_COLOURS: Final = {"error": "red", "note": "yellow", "hint": "cyan"}
# the only characters of our own outside ASCII, for terminals and pipes that cannot show them
_PLAIN: Final = dict(zip(map(ord, "▁▂▃▄▅▆▇█"), "_.:-=+*#", strict=True))
# a parameter and its value, as a hint of the library writes them
_PARAMETER: Final = re.compile(r"`(?P<name>[a-z]\w*)=(?P<value>[^`\s]+)`")


@dataclass(slots=True)
class Session:
    """How this run talks to its user; the options every command takes set it."""

    debug: bool = False  # show tracebacks
    quiet: bool = False  # print neither notes nor hints nor progress
    color: bool | None = None  # force it on or off; ``None`` leaves it to the terminal

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Session:
        """Read NO_COLOR, FORCE_COLOR and COLLAPSE_AUDIT_DEBUG; empty means unset."""
        color = None
        if environment.get("FORCE_COLOR"):
            color = True
        if environment.get("NO_COLOR"):  # https://no-color.org: it wins
            color = False
        debug = environment.get("COLLAPSE_AUDIT_DEBUG", "") not in ("", "0")
        return cls(debug=debug, color=color)


def is_quiet() -> bool:
    """Whether the running command was told to be."""
    return click.get_current_context().ensure_object(Session).quiet


def say(kind: Literal["error", "note", "hint"], text: str, session: Session) -> None:
    """Print one line on stderr."""
    # control characters are escaped: the text may quote a foreign file
    line = printable(" ".join(text.splitlines()), 2000)
    click.echo(
        f"{click.style(f'{kind}:', fg=_COLOURS[kind])} {line}", err=True, color=session.color
    )


def explain(error: Exception) -> tuple[str, str]:
    """What is wrong, and what to do next, in terms of the options of the running command."""
    match error:
        case CollapseAuditError():
            return redact_paths(error.message), redact_paths(_in_options(error.hint))
        case click.UsageError():
            help_option = f"Try '{error.ctx.command_path} --help'." if error.ctx else ""
            return _sentence(scrub(error.format_message())), help_option
        case click.ClickException():
            return _sentence(scrub(error.format_message())), ""
        case ModuleNotFoundError(name=str(name)) if not name.startswith("collapse_audit"):
            package = name.partition(".")[0]
            return f"This needs {package}, which is not installed.", "Install the whole package."
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror or type(error).__name__}.", ""
        case _:
            return (
                f"internal error: {_sentence(scrub(f'{type(error).__name__}: {error}'))}",
                "Run again with --debug for the traceback, and please report it.",
            )


def explained(error: Exception) -> str:
    """Both in one line."""
    return " ".join(explain(error)).strip()


def _in_options(hint: str) -> str:
    """A hint of the library, which calls parameters ```name=value```, with options for them."""
    context = click.get_current_context(silent=True)
    if context is None:  # they are options already
        return hint
    root = context.find_root()
    commands = [root.command]
    if isinstance(root.command, click.Group):
        # what a report lacks is an option of `audit`
        names = ("audit", root.invoked_subcommand or "")
        commands = [c for name in names if (c := root.command.get_command(root, name))]
    inner = (each for command in commands for each in getattr(command, "commands", {}).values())
    options = {option.name: option for each in (*inner, *commands) for option in each.params}

    def option(parameter: re.Match[str]) -> str:
        found = options.get(parameter["name"]) or options.get(f"{parameter['name']}s")
        if not isinstance(found, click.Option):
            return parameter[0]
        if parameter["value"] == "False":
            return found.secondary_opts[0] if found.secondary_opts else f"no {found.opts[0]}"
        return found.opts[0] + ("" if found.is_bool_flag else f" {parameter['value']}")

    return _PARAMETER.sub(option, hint)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def emit(text: str, output: Path | None) -> None:
    """Print a whole result on stdout, or write it to a file."""
    if output is None:
        click.echo(encodable(text, sys.stdout.encoding or "utf-8"), nl=False)
        return
    try:
        write_atomically(output, text.encode("utf-8", "backslashreplace"))
    except SourceError as error:
        reason = getattr(error.__cause__, "strerror", error)
        raise ParameterError(f"-o: cannot write {output}: {reason}.") from error


def encodable(text: str, encoding: str) -> str:
    """Replace what an encoding cannot express, so that a narrow pipe never stops a result."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "replace").decode(encoding)
    return text


def check_output(output: Path, sources: Iterable[str] = (), *, option: str = "-o") -> None:
    """Refuse an output that is a source or cannot be written, before the work and not after."""
    folder = output.parent
    if not folder.is_dir():
        raise ParameterError(
            f"{option}: there is no folder {folder}.", hint=f"Try: mkdir -p {folder}"
        )
    if output.is_dir():
        raise ParameterError(f"{option}: {output} is a folder.", hint="Name a file in it.")
    if output.exists() and any(Path(s).exists() and output.samefile(s) for s in sources):
        raise ParameterError(f"{option}: {output} is the source itself.", hint="Name another file.")
    if not os.access(output if output.exists() else folder, os.W_OK):
        raise ParameterError(f"{option}: no permission to write {output}.")
