"""Text for people: lines that are safe to print, sizes, and what was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def printable(text: object, limit: int | None = 200) -> str:
    """One line of at most ``limit`` characters that is safe to print, whatever a file holds."""
    # Control characters are escaped, and so is what a line of a CI log must not hold: ``::`` and
    # ``##[`` are orders to a runner of GitHub.
    line = str(text)
    line = line if limit is None else line[: limit + 1]
    if not line.isprintable():
        line = line.translate(_ESCAPES)
    line = re.sub(r":(?=:)", r"\\x3a", line).replace("##[", "\\x23#[")
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def redact(url: str) -> str:
    """An address without what may be secret: user, password, query and fragment."""
    # A password may hold / ? # and @ as they are: behind the last @ there is none. Stores have no
    # passwords, but file names with an @, as the hub has revisions.
    scheme, mark, rest = (*re.split("(:/{1,2})", url, maxsplit=1), "", "")[:3]
    server = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if scheme.lower() not in _STORES or not {"@", ":"}.isdisjoint(server):
        before, _, rest = rest.rpartition("@")
        if not {"?", "#"}.isdisjoint(before):  # in a password, or with a secret behind them?
            rest = "…"
    return scheme.lower() + mark + re.split(r"[?#]", rest, maxsplit=1)[0]


def redact_paths(text: str) -> str:
    """A message of ours with web addresses redacted that were taken for paths, with one slash."""
    return _PATH_IN_TEXT.sub(lambda path: redact(path[0]), text)


def redact_all(text: str) -> str:
    """Somebody else's text with every address in it redacted, and queries without an address."""
    return _QUERY_IN_TEXT.sub("", _URL_IN_TEXT.sub(lambda url: redact(url[0]), text))


def scrub(text: object) -> str:
    """Somebody else's message on one line, redacted."""
    return printable(" ".join(redact_all(str(text)).split()))


class _Escapes(dict[int, str]):
    """What stands for each character: itself, if it is safe to print."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character if character.isprintable() else repr(character)[1:-1]
        return self[code]


_ESCAPES = _Escapes()
_STORES = frozenset({"hf", "s3", "s3a", "gs", "gcs", "memory", "file"})
_PATH_IN_TEXT = re.compile(r"https?:/(?!/)[^\s'\"<>]+", re.IGNORECASE)
_URL_IN_TEXT = re.compile(rf"[a-zA-Z][a-zA-Z0-9+.-]+://[^\s'\"<>]+|(?i:{_PATH_IN_TEXT.pattern})")
_QUERY_IN_TEXT = re.compile(r"(?<=\w)\?\w[^\s'\"<>=]*=[^\s'\"<>]*")  # urllib3: "with url: /x?sig=1"


def megabytes(size: int | None) -> str:
    """A size in bytes for people, such as ``67.1 MB``, in decimal units as download pages do."""
    if size is None:
        return "of unknown size"
    return f"{size:,} bytes" if size < 100_000 else f"{size / 1e6:,.1f} MB"


def did_you_mean(
    word: str, choices: Iterable[str], *, what: str = "", most: int = 3, cutoff: float = 0.6
) -> str:
    """A question that names the choices most like a word: ``Did you mean a or b?``; else empty."""
    # what: what they are, such as ``"the command "``; most: how many to name; cutoff: how alike
    # they must be, from 0 (anything) to 1 (equal)
    folded = {choice.lower(): choice for choice in choices}
    likely = difflib.get_close_matches(word.lower(), folded, n=most, cutoff=cutoff)
    names = " or ".join(printable(folded[name]) for name in likely)
    return f"Did you mean {what}{names}?" if likely else ""
