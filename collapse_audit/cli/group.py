"""The commands, loaded when they are used, and `audit` for words that are none."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import takewhile
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from collapse_audit.cli.console import Session, explain
from collapse_audit.cli.source_name import SourceName
from collapse_audit.errors import CollapseAuditError, ManifestError, SourceError
from collapse_audit.version import __version__
from collapse_audit.words import did_you_mean

#: Command to its line in the overview: `--help` imports no command.
COMMANDS: Final = {
    "audit": "How many prototypes are unique?",
    "cache": "List, verify or clear what was fetched.",
    "check": "Fail if a head got worse.",
    "clusters": "How many clusters do features have?",
    "compare": "Heads side by side.",
    "demo": "Audit the small head inside the package.",
    "download": "Fetch heads for audits offline.",
    "gallery": "Show what the classes look like.",
    "history": "Audit every checkpoint of a run.",
    "info": "Show what a file holds.",
    "list": "Public checkpoints that hold prototypes.",
    "mlcd": "Which classes does the head predict?",
    "reproduce": "Published counts beside measured ones.",
    "schema": "Print the JSON Schema of an output.",
    "train": "Train a head, audit before and after.",
}
DEFAULT: Final = "audit"

_HELP: Final = ("-h", "--help", "--version")


class CommandGroup(click.Group):
    """Group with lazy commands, in which `SOURCE` alone means `audit SOURCE`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the overview."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str | None) -> click.Command | None:  # noqa: ARG002
        """Import a command and give it the options that all commands share."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"collapse_audit.cli.commands.{cmd_name}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        known = {parameter.name for parameter in command.params}
        command.params.extend(option for option in _shared_options() if option.name not in known)
        if "help" not in known:
            click.help_option("-h", "--help")(command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let shared options stand before the command, and supply the default command."""
        shared = {flag for option in _shared_options() for flag in option.opts}
        first = list(takewhile(shared.__contains__, args))
        rest = args[len(first) :]
        if rest and rest[0] in COMMANDS:
            args = [rest[0], *first, *rest[1:]]
        elif rest and rest[0] in _HELP:
            args = rest
        elif args:
            args = [DEFAULT, *args]
            ctx.meta[__name__] = next((word for word in rest if not word.startswith("-")), "")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its errors name its options, and commands that were mistyped."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # `| head` has read enough. Python flushes once more at exit: let that go nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(0) from None
        except CollapseAuditError as error:
            message, hint = explain(error)
            if isinstance(error, SourceError | ManifestError):
                word = ctx.meta.get(__name__, "")
                likely = did_you_mean(word, COMMANDS, what="the command ", most=1, cutoff=0.7)
                hint = f"{hint} {likely}".strip()
            raise type(error)(message, hint=hint) from error

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands and options, and sources: the first word may be one."""
        known = super().shell_complete(ctx, incomplete)
        sources = [] if incomplete.startswith("-") else SourceName().shell_complete(incomplete)
        return [*sources, *known]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the overview without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _shared_options() -> list[click.Option]:
    """Options of every command; they set the session and are not passed on."""

    def setting(name: str, value: bool) -> Callable[..., None]:
        def apply(ctx: click.Context, _: click.Parameter, given: bool) -> None:
            if given:
                setattr(ctx.ensure_object(Session), name, value)
                if name == "color":
                    ctx.color = value

        return apply

    def flag(names: list[str], text: str, callback: Callable[..., None]) -> click.Option:
        return click.Option(names, is_flag=True, expose_value=False, help=text, callback=callback)

    return [
        flag(["-q", "--quiet"], "No notes, hints or progress.", setting("quiet", True)),
        flag(["--no-color"], "No colour; NO_COLOR does the same.", setting("color", False)),
        flag(["--debug"], "Show tracebacks of errors.", setting("debug", True)),
    ]


@click.group(
    cls=CommandGroup,
    epilog="""\b
Examples:
  collapse-audit demo                         a small head, offline
  collapse-audit checkpoint0100.pth           any file with a prototype head
  collapse-audit mlcd demo --data digits      the classes that samples fall into
  collapse-audit dino_vits16 --format json    a public checkpoint, by its id

\b
Results go to stdout, everything else to stderr.
Exit codes: 0 fine, 1 a finding, 2 usage or input error, 130 interrupted.""",
)
@click.help_option("-h", "--help")
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Tell whether the prototypes of a self-supervised head are really different.

    `collapse-audit SOURCE` is short for `collapse-audit audit SOURCE`. SOURCE is a file, or an id
    that `collapse-audit list` shows.
    """
