"""What the answers of a web server mean, and what to do about those that are no file."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import urllib.error
from typing import Any

from collapse_audit.errors import SourceError
from collapse_audit.remote.addresses import scrub
from collapse_audit.remote.remote_files import FileVersion, TransientError

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_REQUESTED_WAIT = 120.0


def refused(shown: str, error: urllib.error.HTTPError) -> Exception:
    """What a status above 400 means, and what to do."""
    status = f"{error.code} {http.client.responses.get(error.code, '')}".strip()
    if error.code in _TRANSIENT_STATUS:
        wait = _retry_after(error.headers)
        what = f"the server answered {status}"
        hint = "Too many requests: try again later, or from another network."
        if error.code != http.HTTPStatus.TOO_MANY_REQUESTS:
            hint = "The server is in trouble: try again later, or give another address."
        if wait is not None and wait > _LONGEST_REQUESTED_WAIT:
            what = f"{what} and asks to wait {wait:,.0f} s"
            return SourceError(f"{shown}: {what}.", hint=hint)
        return TransientError(what, hint=hint, wait=wait)
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return SourceError(
            f"{shown}: the file is empty or shorter than before ({status}).",
            hint="Check the address; the upload may be unfinished.",
        )
    hints = {
        401: "It needs a login: put a token in place (HF_TOKEN for hf://), or download it by hand.",
        403: "Not allowed: the link may have expired, need a query string, or a licence to be "
        "accepted in a browser first.",
        404: "No such file: check the address; if the manifest gives it, it has moved.",
        410: "It was removed: look for another copy.",
    }
    what = scrub(error.reason) if error.code < 400 else f"the server answered {status}"
    return SourceError(
        f"{shown}: {what}.",
        hint=hints.get(error.code, "Open the address in a browser to see what it says."),
    )


def unreachable(shown: str, error: Exception) -> Exception:
    """A failure without a status."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return SourceError(
            f"{shown}: the server's certificate is not valid ({reason.verify_message}).",
            hint="Behind a proxy that inspects traffic, set SSL_CERT_FILE to its certificate.",
        )
    if isinstance(reason, ValueError) and not isinstance(reason, OSError):
        return SourceError(f"{shown}: not a usable address ({scrub(reason)}).")
    return transient(reason)


def check_complete(received: int, expected: int) -> None:
    """Python's own client takes an early end of the connection for the end of the file."""
    if received < expected:
        raise TransientError(f"the connection was cut off after {received:,} of {expected:,} bytes")


def version_of(response: http.client.HTTPResponse) -> FileVersion:
    """The state of the file that an answer is about.

    Args:
        response: An answer.

    Returns:
        Its size, tag and date, as far as the server tells.
    """
    size: int | None = None
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        size = int(match[3]) if match and match[3] != "*" else None
    elif (length := response.headers.get("Content-Length", "")).isdecimal():
        size = int(length)
    headers = response.headers
    return FileVersion(size, headers.get("ETag"), headers.get("Last-Modified"))


def first_byte(response: http.client.HTTPResponse) -> int | None:
    """Where the range of an answer begins.

    Args:
        response: An answer.

    Returns:
        Its first byte as the server states it.
    """
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _retry_after(headers: Any) -> float | None:
    """Seconds that a server asks to wait; a date is left to the usual backoff."""
    text = headers.get("Retry-After", "") if headers is not None else ""
    return float(text) if text.isdecimal() else None


def transient(error: object) -> TransientError:
    """A failure of the connection, in words.

    Args:
        error: What Python raised.

    Returns:
        A failure that may pass.
    """
    if isinstance(error, socket.gaierror):
        return TransientError(
            "the name of the server is not known", hint="Check the address and the network."
        )
    if isinstance(error, TimeoutError):
        return TransientError("the server does not answer", hint="Try again later.")
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
    return TransientError(f"the connection failed ({scrub(reason) or type(error).__name__})")
