"""Rows of cells as columns of text, or as a Markdown table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from collapse_audit.words import printable

# an underscore between letters is no markup: ids stay readable where Markdown is not rendered
_MARKDOWN: Final = re.compile(r"[\\`*\[\]<>|#~$&]|(?<!\w)_++|_++(?!\w)")
# what GitHub makes a mention or a link of, in rendered text too: an empty character parts it
_LINKS: Final = re.compile(
    r"@|[a-z]+:(?=//)|www(?=\.)|\\#(?=\d)|\b(?:GH|mailto|xmpp)(?=[-:])", re.IGNORECASE
)


def text_columns(
    titles: Sequence[str],
    rows: Iterable[Sequence[str]],
    layout: str = "",
    *,
    gap: str = "  ",
    most: int | None = None,
) -> list[str]:
    """Lay cells, control characters escaped, out in columns as wide as their widest cell."""
    # layout: one word per column, ``<`` or ``>`` for left (the default) or right, with the smallest
    # width behind it if there is one: ``"< >9"``. most: rows shown; a last line tells how many more
    # there are. No titles: no first line.
    cells = [[printable(cell, None) for cell in row] for row in rows]
    shown = [*([titles] if titles else []), *cells[:most]]
    words = layout.split() or ["<"] * max(map(len, shown), default=0)
    widths = [
        max(int(word[1:] or 0), *map(len, column), 0)
        for word, *column in zip(words, *shown, strict=True)
    ]
    lines = [
        gap.join(
            cell.rjust(width) if word[0] == ">" else cell.ljust(width)
            for cell, word, width in zip(row, words, widths, strict=True)
        ).rstrip()
        for row in shown
    ]
    more = len(cells) - len(cells[:most])
    return [*lines, f"… and {more:,} more"] if more else lines


def pipe_table(titles: Sequence[str], rows: Iterable[Sequence[str]], layout: str = "") -> list[str]:
    """A table of GitHub-flavoured Markdown, cells escaped; layout as for :func:`text_columns`."""
    words = layout.split() or ["<"] * len(titles)
    return [
        f"| {' | '.join(titles)} |",
        f"|{''.join('--:|' if word[0] == '>' else '---|' for word in words)}",
        *(f"| {' | '.join(map(escape, row))} |" for row in rows),
    ]


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    marked = _MARKDOWN.sub(lambda run: "".join(f"\\{c}" for c in run[0]), printable(text, None))
    return _LINKS.sub(r"\g<0>&#8203;", marked)
