"""`collapse-audit schema`: what the JSON means, for machines."""

import click

from collapse_audit.cli.console import emit
from collapse_audit.report.json_text import to_json
from collapse_audit.report.schema import report_schema


@click.command(
    name="schema",
    epilog="""\b
Example:
  collapse-audit schema > report.schema.json""",
)
def schema_command() -> None:
    """Print the JSON Schema of the reports.

    The JSON of `audit`, `demo` and `mlcd` obeys it (draft 2020-12), and so does that of an error
    in any command. Verdicts, comparisons and all other JSON are documents of other kinds.
    """
    emit(to_json(report_schema()), None)
