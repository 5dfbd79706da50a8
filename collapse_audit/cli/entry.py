"""Entry point: runs the command line and turns whatever happens into an exit code.

==== =====================================================================
code meaning
==== =====================================================================
0    fine; also when the reader of a pipe went away (``| head``)
1    a finding: never used for errors, so that CI can tell the two apart
2    usage or input error, or a fault of this program: there is no result
130  interrupted with Ctrl-C
==== =====================================================================

The code is the same in every output format.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, takewhile
from typing import Any, Final

import click

from collapse_audit.cli.console import Session, explain, say
from collapse_audit.cli.group import cli
from collapse_audit.errors import CollapseAuditWarning
from collapse_audit.report.json_text import to_json
from collapse_audit.report.schema import error_document
from collapse_audit.words import redact_all

USAGE: Final = 2
INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, of the process by default, and give the exit code."""
    # Threads that spin while they wait stall for milliseconds each time a core is taken by another
    # process; OpenMP reads this when it is loaded, which is later than here.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    arguments = list(sys.argv[1:] if argv is None else argv)
    session = Session.from_environment(os.environ)
    with _notes(session):
        try:
            result = cli.main(arguments, "collapse-audit", standalone_mode=False, obj=session)
        except (click.Abort, KeyboardInterrupt):
            say("error", "interrupted", session)
            return INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as request:
            request.show()
            return USAGE
        except Exception as error:  # noqa: BLE001 - the last line of defence
            _report_error(error, session, as_json=_wants_json(arguments))
            return USAGE
    return result if isinstance(result, int) else 0


def _report_error(error: Exception, session: Session, *, as_json: bool) -> None:
    """One line on stderr; also a document on stdout if the user asked for JSON."""
    message, hint = explain(error)
    if session.debug:
        click.echo(redact_all("".join(traceback.format_exception(error))), err=True, nl=False)
    say("error", f"{message} {hint}".strip(), session)
    if as_json:
        kind = type(error).__name__
        click.echo(to_json(error_document(kind, message, hint)), nl=False)


def _wants_json(arguments: Sequence[str]) -> bool:
    """Whether the arguments ask for JSON; they may be too broken for click to say so."""
    options = list(takewhile(lambda word: word != "--", arguments))
    return (
        "--json" in options
        or "--format=json" in options
        or ("--format", "json") in pairwise(options)
    )


@contextmanager
def _notes(session: Session) -> Iterator[None]:
    """Show our own warnings as one-line notes, each once, and leave all others as they are."""
    with warnings.catch_warnings():
        show_others = warnings.showwarning
        shown: set[str] = set()

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, CollapseAuditWarning):
                show_others(message, category, *where, **more)
            elif not session.quiet and str(message) not in shown:
                shown.add(str(message))
                say("note", str(message), session)

        warnings.showwarning = show
        warnings.simplefilter("always", CollapseAuditWarning)
        yield
