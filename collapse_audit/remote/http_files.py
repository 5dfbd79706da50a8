"""Files behind http and https.

The standard library and not fsspec's http file system: that one buffers the whole file when a
server ignores the range, does not compare the range that came with the one it asked for, and
knows neither a total time limit nor a conditional resume. Proxies come from the environment.
"""

from __future__ import annotations

import base64
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import IO
from urllib.parse import unquote, urlsplit, urlunsplit

from collapse_audit.errors import SourceError
from collapse_audit.remote.addresses import redact
from collapse_audit.remote.http_answers import (
    check_complete,
    first_byte,
    refused,
    transient,
    unreachable,
    version_of,
)
from collapse_audit.remote.remote_files import (
    HEAD_BYTES,
    FileVersion,
    Patience,
    RangesUnusableError,
    TransientError,
    too_large,
)
from collapse_audit.remote.settings import StorageSettings
from collapse_audit.version import __version__

_BLOCK = 1 << 20
_OVERLAP = 256


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
        """
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
        """
        if length is None and self.version.size is not None:
            length = self.version.size - start
        position, since_failure, last = start, 0, None if length is None else start + length
        seen = b""  # what came last; a resumed answer must begin with it
        while last is None or position < last:
            try:
                answer = self._body(position - len(seen), last, whole_allowed)
                for block in self._behind(seen, answer):
                    seen = block[-_OVERLAP:]
                    position += len(block)
                    since_failure += len(block)
                    yield block
                if last is None:
                    return
                check_complete(position, last)
            except TransientError as failure:
                if since_failure > _BLOCK:  # else a server that gives single bytes goes on for ever
                    self._patience.renew()
                since_failure = 0
                self._patience.wait_after(failure)

    def _behind(self, seen: bytes, answer: Iterator[bytes]) -> Iterator[bytes]:
        """What follows bytes that are known, which the answer repeats."""
        repeated = b""
        for block in answer:
            missing = len(seen) - len(repeated)
            repeated += block[:missing]
            if not seen.startswith(repeated):
                raise RangesUnusableError(f"{self.shown}: the server sent another range.")
            if rest := block[missing:]:
                yield rest

    def _open(self) -> None:
        """Ask for the first bytes: that tells the size, the version and whether ranges work."""
        while True:
            try:
                with self._request(0, HEAD_BYTES) as response:
                    self.version = version_of(response)
                    self.has_ranges = response.status == http.HTTPStatus.PARTIAL_CONTENT
                    self.head = b"".join(self._blocks(response, HEAD_BYTES))
                check_complete(len(self.head), min(self.version.size or 0, HEAD_BYTES))
            except TransientError as failure:
                self._patience.wait_after(failure)
            else:
                return

    def _body(self, start: int, last: int | None, whole_allowed: bool) -> Iterator[bytes]:
        """The blocks of one answer, checked to be of this file and this part."""
        with self._request(start, last) as response:
            if version_of(response).differs_from(self.version):
                raise SourceError(
                    f"{self.shown}: the file changed on the server while it was read.",
                    hint="Run it again.",
                )
            skip = 0
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                if not whole_allowed:
                    raise RangesUnusableError(f"{self.shown}: the server ignores ranges.")
                skip = start
            elif first_byte(response) != start:
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
                raise transient(error) from error
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
        request.add_header(
            "Range", f"bytes={start}-" if last is None else f"bytes={start}-{last - 1}"
        )
        if self._authorization:
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            response = self._opener.open(request, timeout=self._patience.timeout)
        except urllib.error.HTTPError as error:
            with error:
                raise refused(self.shown, error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise unreachable(self.shown, error) from None
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            raise SourceError(
                f"{self.shown}: the server compresses what it sends, though it was asked not to.",
                hint="Download the file in a browser and give its path.",
            )
        return response  # type: ignore[no-any-return]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow at most ten redirects, none of them from https to http or to another scheme."""

    def __init__(self, *, insecure_http: bool) -> None:
        self._insecure_http = insecure_http

    def redirect_request(  # noqa: PLR0917 - the base class calls it so
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
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
