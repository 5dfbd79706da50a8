"""Files behind http and https.

The standard library and not fsspec's http file system: that one buffers the whole file when a
server ignores the range, does not compare the range that came with the one it asked for, and
knows neither a total time limit nor a conditional resume. Proxies come from the environment.
"""

from __future__ import annotations

import base64
import http.client
import os
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from collapse_audit.errors import SourceError
from collapse_audit.storage.addresses import redact, scrub
from collapse_audit.storage.remote_files import (
    HEAD_BYTES,
    FileVersion,
    Patience,
    RangesUnusableError,
    TransientError,
)
from collapse_audit.storage.settings import StorageSettings
from collapse_audit.version import __version__

_BLOCK = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_REQUESTED_WAIT = 120.0


class HttpFile:
    """A file of a web server.

    Attributes:
        shown: Its address as it may be printed.
        head: Its first bytes, at most 512.
        version: Its state when it was opened.
        has_ranges: Whether the server answered a range with that range.
    """

    def __init__(self, url: str, settings: StorageSettings, token: str | None = None) -> None:
        self.shown = redact(url)
        self._url, self._authorization = _credentials(url, token)
        self._patience = Patience(self.shown, settings)
        self._max_bytes = settings.max_bytes
        redirects = _Redirects(insecure_http=settings.insecure_http)
        self._opener = urllib.request.build_opener(redirects)
        self.version = FileVersion(None)
        self.has_ranges = True
        self.head = b""
        self._open()

    def read(self, start: int, length: int) -> bytes:
        """Read a part.

        Args:
            start: First byte.
            length: Number of bytes.

        Returns:
            Exactly that many.

        Raises:
            SourceError: If the server does not give them.
            RangesUnusableError: If it answers with something else.
        """  # noqa: DOC502  (raised on the way)
        return b"".join(self.stream(start, length, whole_allowed=False))

    def stream(
        self, start: int, length: int | None, *, whole_allowed: bool = True
    ) -> Iterator[bytes]:
        """Read a part block by block; a connection that breaks is resumed.

        Args:
            start: First byte.
            length: Number of bytes; ``None`` for all that follow.
            whole_allowed: Whether a server that sends the whole file may do so; what comes before
                ``start`` is then thrown away.

        Yields:
            Blocks of at most 1 MiB.

        Raises:
            SourceError: If the server does not give them.
            RangesUnusableError: If it answers with something else, and that is not allowed.
        """  # noqa: DOC502  (raised on the way)
        if length is None and self.version.size is not None:
            length = self.version.size - start
        position, since_failure, last = start, 0, None if length is None else start + length
        while last is None or position < last:
            try:
                for block in self._body(position, last, whole_allowed):
                    position += len(block)
                    since_failure += len(block)
                    yield block
                if last is None:
                    return
                if position < last:
                    raise TransientError(
                        f"the connection was cut off after {position:,} of {last:,} bytes"
                    )
            except TransientError as failure:
                if since_failure > _BLOCK:  # else a server that gives single bytes goes on for ever
                    self._patience.renew()
                since_failure = 0
                self._patience.wait_after(failure)

    def _open(self) -> None:
        """Ask for the first bytes: that tells the size, the version and whether ranges work."""
        while True:
            try:
                with self._request(0, HEAD_BYTES) as response:
                    self.version = _version(response)
                    self.has_ranges = response.status == http.HTTPStatus.PARTIAL_CONTENT
                    self.head = b"".join(self._blocks(response, HEAD_BYTES))
                wanted = HEAD_BYTES if self.version.size is None else self.version.size
                if len(self.head) < min(wanted, HEAD_BYTES) and self.version.size is not None:
                    raise TransientError(f"the connection was cut off after {len(self.head)} bytes")
            except TransientError as failure:
                self._patience.wait_after(failure)
            else:
                return

    def _body(self, start: int, last: int | None, whole_allowed: bool) -> Iterator[bytes]:
        """The blocks of one answer, checked to be of this file and this part."""
        with self._request(start, last) as response:
            if _version(response).differs_from(self.version):
                raise SourceError(
                    f"{self.shown}: the file changed on the server while it was read.",
                    hint="Run it again.",
                )
            skip = 0
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                if not whole_allowed:
                    raise RangesUnusableError(f"{self.shown}: the server ignores ranges.")
                skip = start
            elif _first_byte(response) != start:
                raise RangesUnusableError(f"{self.shown}: the server sent another range.")
            left = None if last is None else skip + last - start
            for block in self._blocks(response, left):
                kept = block[skip:]
                skip -= len(block) - len(kept)
                if kept:
                    yield kept

    def _blocks(self, response: http.client.HTTPResponse, left: int | None) -> Iterator[bytes]:
        """At most ``left`` bytes of an answer; fewer if it ends early."""
        received = 0
        while left is None or received < left:
            self._patience.check_time()
            try:
                # read1 returns what has come: a server that drips bytes must not outlast the limit
                block = response.read1(_BLOCK if left is None else min(_BLOCK, left - received))
            except (OSError, http.client.HTTPException) as error:
                raise _transient(error) from error
            if not block:
                return
            received += len(block)
            if received > self._max_bytes:
                raise too_large(self.shown, None, self._max_bytes)
            yield block

    def _request(self, start: int, last: int | None) -> http.client.HTTPResponse:
        """One answer with a status that has a body, or an error that says what to do."""
        self._patience.check_time()
        request = urllib.request.Request(self._url)  # noqa: S310 - the scheme has been checked
        request.add_header("User-Agent", f"collapse-audit/{__version__}")
        request.add_header("Accept-Encoding", "identity")  # offsets are those of the file
        request.add_header("Range", f"bytes={start}-" if last is None else f"bytes={start}-{last - 1}")
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            response = self._opener.open(request, timeout=self._patience.timeout)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreachable(error) from None
        return response  # type: ignore[no-any-return]

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
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
                return SourceError(f"{self.shown}: {what}.", hint=hint)
            return TransientError(what, hint=hint, wait=wait)
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return SourceError(
                f"{self.shown}: the file is empty or shorter than before ({status}).",
                hint="Check the address; the upload may be unfinished.",
            )
        hints = {
            401: "It needs a login: put a token in place (HF_TOKEN for hf://), or download it "
            "by hand.",
            403: "Not allowed: the link may have expired, need a query string, or a licence to be "
            "accepted in a browser first.",
            404: "No such file: check the address; if the manifest gives it, it has moved.",
            410: "It was removed: look for another copy.",
        }
        what = scrub(error.reason) if error.code < 400 else f"the server answered {status}"
        return SourceError(
            f"{self.shown}: {what}.",
            hint=hints.get(error.code, "Open the address in a browser to see what it says."),
        )

    def _unreachable(self, error: Exception) -> Exception:
        """A failure without a status."""
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return SourceError(
                f"{self.shown}: the server's certificate is not valid ({reason.verify_message}).",
                hint="Behind a proxy that inspects traffic, set SSL_CERT_FILE to its certificate.",
            )
        if isinstance(reason, ValueError) and not isinstance(reason, OSError):
            return SourceError(f"{self.shown}: not a usable address ({scrub(reason)}).")
        return _transient(reason)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow at most ten redirects, none of them from https to http or to another scheme."""

    def __init__(self, *, insecure_http: bool) -> None:
        self._insecure_http = insecure_http

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message[str, str],
        newurl: str,
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and not (scheme == "http" and self._insecure_http):
            raise SourceError(
                f"{redact(req.full_url)}: the server sends on to {redact(newurl)}, "
                "which is not https.",
                hint="Use the address of another server; --insecure-http allows plain http.",
            )
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        secret = req.unredirected_hdrs.get("Authorization")
        # a token is for the host that it was given for, not for those it points to
        if request is not None and secret and _origin(req.full_url) == _origin(newurl):
            request.add_unredirected_header("Authorization", secret)
        return request


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _credentials(url: str, token: str | None) -> tuple[str, str | None]:
    """An address without user and password, and the header that carries them instead."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    bare = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    if at:
        return bare, "Basic " + base64.b64encode(unquote(user).encode()).decode()
    return bare, f"Bearer {token}" if token else None


def _version(response: http.client.HTTPResponse) -> FileVersion:
    size: int | None = None
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        size = int(match[3]) if match and match[3] != "*" else None
    elif (length := response.headers.get("Content-Length", "")).isdecimal():
        size = int(length)
    headers = response.headers
    return FileVersion(size, headers.get("ETag"), headers.get("Last-Modified"))


def _first_byte(response: http.client.HTTPResponse) -> int | None:
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _retry_after(headers: Any) -> float | None:
    """Seconds that a server asks to wait; a date is left to the usual backoff."""
    text = headers.get("Retry-After", "") if headers is not None else ""
    return float(text) if text.isdecimal() else None


def _transient(error: object) -> TransientError:
    if isinstance(error, socket.gaierror):
        return TransientError(
            "the name of the server is not known", hint="Check the address and the network."
        )
    if isinstance(error, TimeoutError):
        return TransientError("the server does not answer", hint="Try again later.")
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
    return TransientError(f"the connection failed ({scrub(reason) or type(error).__name__})")


def too_large(shown: str, size: int | None, limit: int) -> SourceError:
    """The error for a file that is larger than allowed.

    Args:
        shown: Its address as it may be printed.
        size: Its size; ``None`` if the server never said.
        limit: The largest size allowed.

    Returns:
        The error, to be raised.
    """
    what = f"has {size:,} bytes" if size is not None else "does not end"
    return SourceError(
        f"{shown}: {what}, and at most {limit:,} are fetched.", hint="Raise --max-bytes if it is right."
    )
