"""What a source is called, and how a shell completes it."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem


class SourceName(click.ParamType[str]):
    """A path, an id, an address, demo or a dash."""

    name = "source"

    def shell_complete(self, *context: Any) -> list[CompletionItem]:
        """Files as the shell completes them, and ids of the manifest."""
        from collapse_audit.manifest import load_manifest

        incomplete = context[-1]
        words = ("demo", *(entry.id for entry in load_manifest().entries))
        ids = [CompletionItem(word) for word in words if word.startswith(incomplete)]
        # the script for bash forgets what came before a file
        return [CompletionItem(incomplete, type="file"), *ids]
