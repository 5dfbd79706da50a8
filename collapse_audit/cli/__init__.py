"""Command line: parse, call, print."""

from collapse_audit.cli.entry import main

__all__ = ["main"]
