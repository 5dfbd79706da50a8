"""Write docs/cli.md from the commands' own ``--help``; with ``--check``, fail if it is stale."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from collapse_audit.cli import cli

PAGE = Path(__file__).with_name("cli.md")
PROGRAM = "collapse-audit"
WIDTH = 80  # fixed: the page must not depend on the terminal it was made in

INTRODUCTION = f"""\
# Command line

<!-- Written by docs/generate_cli_reference.py (make reference): edit the help texts instead. -->

`{PROGRAM} SOURCE` is short for `{PROGRAM} audit SOURCE`. The result goes to stdout;
progress, hints and warnings go to stderr.

| exit code | meaning |
|---|---|
| 0 | no finding |
| 1 | a finding: a gate failed or a head got worse |
| 2 | a usage or input error, told in one line |
| 130 | interrupted |
"""


def walk(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[click.Context]:
    """Yield the context of a command and of all commands below it, in the order of the help."""
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH
    )
    yield context
    if isinstance(command, click.Group):
        for child_name in command.list_commands(context):
            child = command.get_command(context, child_name)
            if child is not None:
                yield from walk(child, child_name, context)


def render(root: click.Command) -> str:
    """Return the page as Markdown: one heading for each command, with its help below."""
    parts = [INTRODUCTION]
    for context in walk(root, PROGRAM):
        help_text = click.unstyle(context.get_help()).rstrip()
        lines = "\n".join(line.rstrip() for line in help_text.splitlines())
        parts.append(f"## {context.command_path}\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


def keep(path: Path, text: str, arguments: list[str]) -> int:
    """Write a file, or compare it with ``--check``; return the exit code."""
    if arguments != ["--check"]:
        path.write_text(text, encoding="utf-8")
        return 0
    stored = path.read_text(encoding="utf-8") if path.exists() else ""
    if stored == text:
        return 0
    name = f"docs/{path.relative_to(PAGE.parent).as_posix()}"
    difference = difflib.unified_diff(
        stored.splitlines(), text.splitlines(), name, "fresh", lineterm=""
    )
    sys.stderr.write("\n".join(difference) + "\n")
    sys.stderr.write(f"{name} is stale: run `make reference` and commit it.\n")
    return 1


def main(arguments: list[str]) -> int:
    """Write the page, or compare it with ``--check``; return the exit code."""
    return keep(PAGE, render(cli), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
