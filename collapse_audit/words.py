"""Text for people: lines that are safe to print, sizes, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def printable(text: object, limit: int | None = 200) -> str:
    """One line that is safe to print, whatever a file calls its keys.

    Args:
        text: A key, a path or somebody else's message.
        limit: Longest line returned, in characters; ``None`` for any length.

    Returns:
        The text with control characters escaped, cut at ``limit``.
    """
    line = str(text)
    line = line if limit is None else line[: limit + 1]
    if not line.isprintable():
        line = line.translate(_ESCAPES)
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


class _Escapes(dict[int, str]):
    """What stands for each character: itself, if it is safe to print."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character if character.isprintable() else repr(character)[1:-1]
        return self[code]


_ESCAPES = _Escapes()


def megabytes(size: int | None) -> str:
    """A size for people.

    Args:
        size: In bytes; ``None`` if unknown.

    Returns:
        Such as ``"67.1 MB"``, in decimal units as download pages have them.
    """
    if size is None:
        return "of unknown size"
    return f"{size:,} bytes" if size < 100_000 else f"{size / 1e6:,.1f} MB"


def did_you_mean(
    word: str, choices: Iterable[str], *, what: str = "", most: int = 3, cutoff: float = 0.6
) -> str:
    """A question that names the choices most like a word.

    Args:
        word: What was typed.
        choices: What is allowed.
        what: What they are, such as ``"the command "``.
        most: How many to name.
        cutoff: How alike they must be, from 0 (anything) to 1 (equal).

    Returns:
        ``"Did you mean a or b?"``, or an empty text if nothing is like it.

    Example:
        >>> did_you_mean("dino_vits6", ["dino_vits16", "swav_rn50"])
        'Did you mean dino_vits16?'
    """
    folded = {choice.lower(): choice for choice in choices}
    likely = difflib.get_close_matches(word.lower(), folded, n=most, cutoff=cutoff)
    names = " or ".join(printable(folded[name]) for name in likely)
    return f"Did you mean {what}{names}?" if likely else ""
