"""Command line: parse, call, print."""

from collapse_audit.cli.entry import main
from collapse_audit.cli.group import cli

__all__ = ["cli", "main"]
