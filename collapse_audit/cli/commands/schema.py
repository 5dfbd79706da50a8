"""`collapse-audit schema`: what the JSON means, for machines."""

import click

from collapse_audit.cli.console import emit
from collapse_audit.report.json_text import to_json
from collapse_audit.report.schema import KINDS, document_schema


@click.command(
    name="schema",
    epilog="""\b
Examples:
  collapse-audit schema > report.schema.json
  collapse-audit schema history > history.schema.json""",
)
@click.argument("kind", type=click.Choice(KINDS), default="report", metavar="[KIND]")
def schema_command(kind: str) -> None:
    """Print the JSON Schema (draft 2020-12) of a document.

    KIND is report (`audit`, `demo` and `mlcd`, and an error of any command; the default), verdict
    (`check`), comparison (`compare`), history, info, or gallery.
    """
    emit(to_json(document_schema(kind)), None)
