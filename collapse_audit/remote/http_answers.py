"""What the answers of a web server mean, and what to do about those that are no file."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING

from collapse_audit.errors import SourceError
from collapse_audit.remote.remote_files import FileVersion, TransientError
from collapse_audit.words import scrub

if TYPE_CHECKING:
    from requests import Response

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_NO_NETWORK = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN})
_LONGEST_REQUESTED_WAIT = 120.0
_HINTS = {
    401: "It needs a login: put a token in place (HF_TOKEN for hf://), or download it by hand.",
    403: "Not allowed: the link may have expired, need a query string, or a licence to be "
    "accepted in a browser first.",
    404: "No such file: check the address; if the manifest gives it, it has moved.",
    410: "It was removed: look for another copy.",
    416: "The file is empty or shorter than before: the upload may be unfinished.",
    429: "Too many requests: try again later, or from another network.",
}


def refused(shown: str, answer: Response) -> Exception:
    """What a status without a file means, and what to do."""
    code = answer.status_code
    what = f"the server answered {code} {scrub(answer.reason or '')}".strip()
    if code not in _TRANSIENT_STATUS:
        hint = _HINTS.get(code, "Open the address in a browser to see what it says.")
        return SourceError(f"{shown}: {what}.", hint=hint)
    trouble = "The server is in trouble: try again later, or give another address."
    hint = _HINTS.get(code, trouble)
    asked = answer.headers.get("Retry-After", "")
    wait = float(asked[:9]) if asked.isdecimal() else 0.0  # a date is left to the usual backoff
    if wait > _LONGEST_REQUESTED_WAIT:
        return SourceError(f"{shown}: {what} and asks to wait {wait:,.0f} s.", hint=hint)
    return TransientError(what, hint=hint, wait=wait)


def failed(shown: str, error: Exception) -> Exception:
    """What a failure without a status means, and what to do."""
    import ssl

    from requests import RequestException
    from urllib3.exceptions import HTTPError, IncompleteRead

    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SourceError(
                f"{shown}: the server's certificate is not valid ({cause.verify_message}).",
                hint="Behind a proxy that inspects traffic, set SSL_CERT_FILE to its certificate.",
            )
        if isinstance(cause, socket.gaierror):
            what, hint = "the name of the server is not known", "Check the address and the network."
            return TransientError(what, hint=hint, lasts=True)
        if isinstance(cause, TimeoutError):
            return TransientError("the server does not answer", hint="Try again later.")
        if isinstance(cause, IncompleteRead) and isinstance(cause.partial, int):
            return cut_off(cause.partial, cause.partial + (cause.expected or 0))
    if isinstance(error, ValueError):
        return SourceError(f"{shown}: not a usable address.", hint="Check it for typing errors.")
    root, lasts = causes[-1], False
    if isinstance(root, OSError) and root.errno:
        reason, lasts = os.strerror(root.errno), root.errno in _NO_NETWORK
    else:  # what requests and urllib3 say may hold the query of the address
        reason = "" if isinstance(root, RequestException | HTTPError) else scrub(root)
    return TransientError(f"the connection failed ({reason or type(root).__name__})", lasts=lasts)


def cut_off(received: int, expected: int) -> TransientError:
    """The failure of a connection that ended early."""
    return TransientError(f"the connection was cut off after {received:,} of {expected:,} bytes")


def version_of(answer: Response) -> FileVersion:
    """The state of the file that an answer is about, as far as the server tells."""
    size: int | None = None
    if answer.status_code == HTTPStatus.PARTIAL_CONTENT:
        match = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
        size = int(match[3]) if match and match[3] != "*" else None
    elif re.fullmatch("[0-9]{1,18}", length := answer.headers.get("Content-Length", "")):
        size = int(length)
    return FileVersion(size, answer.headers.get("ETag"), answer.headers.get("Last-Modified"))


def first_byte(answer: Response) -> int | None:
    """Where the range of an answer begins, as the server states it."""
    match = _CONTENT_RANGE.match(answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
