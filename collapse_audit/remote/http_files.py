"""Files behind http and https: a session of requests, and our own check of every answer.

requests keeps the connection and knows proxies and certificates. Where an answer may come from
(redirects), whether it is the range that was asked for, of the same file and complete, and how
long it may take in all, is decided here.
"""

from __future__ import annotations

import base64
import os
import string
from collections.abc import Callable, Iterator
from functools import cache
from http import HTTPStatus
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from collapse_audit.errors import SourceError
from collapse_audit.remote.http_answers import cut_off, failed, first_byte, refused, version_of
from collapse_audit.remote.remote_files import (
    HEAD_BYTES,
    FileVersion,
    Patience,
    RangesUnusableError,
    TransientError,
    has_changed,
    too_large,
)
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.version import __version__
from collapse_audit.words import redact

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session

_BLOCK = 1 << 20
_OVERLAP = 256
_MAX_REDIRECTS = 10


class HttpFile:
    """A :class:`~collapse_audit.remote.remote_files.RemoteFile` of a web server."""

    def __init__(self, url: str, settings: RemoteSettings, token: str | None = None) -> None:
        self.shown = redact(url)
        self._url, self._authorization = _credentials(url, token)
        self._patience = Patience(self.shown, settings)
        self._max_bytes = settings.max_bytes
        self.version = FileVersion(None)
        self.has_ranges = True
        # the first bytes also tell the size, the version and whether ranges work
        self.head = self.read(0, HEAD_BYTES)

    def read(self, start: int, length: int) -> bytes:
        """Read a part."""
        return b"".join(self.stream(start, length))

    def stream(self, start: int, length: int | None, seen: bytes = b"") -> Iterator[bytes]:
        """Read a part in blocks of at most 1 MiB; a connection that breaks is resumed."""
        position, since_failure, last = start, 0, None if length is None else start + length
        with self._patience.running():
            while last is None or position < last:
                try:
                    answer = self._body(position - len(seen), last)
                    for block in self._behind(seen, answer):
                        seen = block[-_OVERLAP:]
                        position += len(block)
                        since_failure += len(block)
                        yield block
                    size = self.version.size
                    if size is None:  # then the end of the answer is all that is known
                        return
                    last = size if last is None else min(last, size)
                    if position < last:
                        raise cut_off(position, last)
                except TransientError as failure:
                    # else a server that gives single bytes goes on for ever
                    if since_failure > _BLOCK:
                        self._patience.renew()
                    since_failure = 0
                    self._patience.wait_after(failure, arrived=self.version != FileVersion(None))

    def _behind(self, seen: bytes, answer: Iterator[bytes]) -> Iterator[bytes]:
        """What follows bytes that are known, which the answer repeats."""
        repeated = b""
        for block in answer:
            missing = len(seen) - len(repeated)
            repeated += block[:missing]
            if not seen.startswith(repeated):
                raise RangesUnusableError(self.shown, "the server sent another range")
            if rest := block[missing:]:
                yield rest

    def _body(self, start: int, last: int | None) -> Iterator[bytes]:
        """The blocks of one answer, checked to be of this file and this part."""
        with self._request(start, last) as answer:
            version, is_part = version_of(answer), answer.status_code == HTTPStatus.PARTIAL_CONTENT
            if self.version == FileVersion(None):
                self.version = version
                self.has_ranges = is_part and version.size is not None and first_byte(answer) == 0
            elif version.differs_from(self.version):
                raise has_changed(self.shown, "while it was read", "Run it again.")
            skip = 0
            if not is_part:
                if self.has_ranges and start:
                    raise RangesUnusableError(self.shown, "the server ignores ranges")
                self.has_ranges, skip = False, start
            elif first_byte(answer) != start:
                raise RangesUnusableError(self.shown, "the server sent another range")
            left = None if last is None else skip + last - start
            for block in self._blocks(answer, left):
                kept = block[skip:]
                skip -= len(block) - len(kept)
                if kept:
                    yield kept

    def _blocks(self, answer: Response, left: int | None) -> Iterator[bytes]:
        """At most ``left`` bytes of an answer; fewer if it ends early."""
        from urllib3.exceptions import HTTPError

        received = 0
        while left is None or received < left:
            self._patience.check_time()
            size = _BLOCK if left is None else min(_BLOCK, left - received)
            try:
                # read1 returns what has come: a server that drips bytes must not outlast the limit
                block = answer.raw.read1(size, decode_content=False)
            except (OSError, HTTPError) as error:
                raise failed(self.shown, error) from error
            if not block:
                return
            received += len(block)
            if left is None and received > self._max_bytes:
                raise too_large(self.shown, None, self._max_bytes)
            yield block

    def _request(self, start: int, last: int | None) -> Response:
        """One answer with a status that has a body, or an error that says what to do."""
        from urllib3.exceptions import HTTPError

        self._patience.check_time()
        try:
            answer = _within(self._patience.left, lambda: self._follow(start, last))
        except (OSError, HTTPError, ValueError) as error:
            raise failed(self.shown, error) from None
        if not _is_file(answer):
            raise refused(self.shown, answer)
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            answer.close()
            raise SourceError(
                f"{self.shown}: the server compresses what it sends, though it was asked not to.",
                hint="Download the file in a browser and give its path.",
            )
        return answer

    def _follow(self, start: int, last: int | None) -> Response:
        """The first answer that is no redirect: at most ten are followed, none of them to http."""
        from ssl import get_default_verify_paths

        headers = {
            "User-Agent": f"collapse-audit/{__version__}",
            "Accept-Encoding": "identity",  # offsets are those of the file
            "Range": f"bytes={start}-" if last is None else f"bytes={start}-{last - 1}",
        }
        url = self._url
        for _ in range(_MAX_REDIRECTS + 1):
            # a token is for the host that it was given for, not for those it points to
            same = urlsplit(url)[:2] == urlsplit(self._url)[:2]
            secret = {"Authorization": self._authorization} if same and self._authorization else {}
            answer = _session(os.getpid(), get_default_verify_paths().cafile).get(
                url,
                headers=headers | secret,
                auth=_as_it_is,
                timeout=self._patience.timeout,
                stream=True,
                allow_redirects=False,
            )
            if _is_file(answer):
                return answer
            with answer:  # read to its end, it leaves a connection that can be used again
                answer.raw.read(_BLOCK, decode_content=False)
            location = answer.headers.get("Location")
            if location is None or answer.status_code >= HTTPStatus.BAD_REQUEST:
                return answer
            location = quote(location, encoding="latin-1", safe=string.punctuation)
            before, url = url, urljoin(url, location)
            if urlsplit(url).scheme not in {"https", urlsplit(before).scheme}:
                raise SourceError(
                    f"{redact(before)}: the server sends on to {redact(url)}, which is not https.",
                    hint="Use the address of another server.",
                )
        raise SourceError(
            f"{self.shown}: more than {_MAX_REDIRECTS} redirects.",
            hint="Open the address in a browser to see where it leads.",
        )


@cache
def _session(_process: int, certificates: str | None) -> Session:
    """The open connections of this process; one that was forked must not share them."""
    import requests

    class Direct(requests.Session):
        def get_redirect_target(self, resp: Response) -> None:
            """None: redirects are followed above, by stricter rules."""

    session = Direct()
    # SSL_CERT_FILE or what Python itself trusts; REQUESTS_CA_BUNDLE goes before it
    session.verify = certificates or True
    return session


def _as_it_is(request: PreparedRequest) -> PreparedRequest:
    """An authentication that adds nothing; without one requests takes passwords from ~/.netrc."""
    return request


def _is_file(answer: Response) -> bool:
    """Whether its status says that the body is the file or a part of it."""
    return HTTPStatus.OK <= answer.status_code < HTTPStatus.MULTIPLE_CHOICES


def _within(seconds: float, action: Callable[[], Response]) -> Response:
    """What an action returns, or a TimeoutError: no single wait of it is long, but all may be."""
    outcomes: SimpleQueue[Response | Exception] = SimpleQueue()

    def work() -> None:
        try:
            outcomes.put(action())
        except Exception as error:  # noqa: BLE001 - raised again below
            outcomes.put(error)

    Thread(target=work, daemon=True).start()
    try:
        outcome = outcomes.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _credentials(url: str, token: str | None) -> tuple[str, str | None]:
    """An address without user and password, and the header that carries them instead."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    bare = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    if at:
        return bare, "Basic " + base64.b64encode(unquote(user).encode()).decode()
    return bare, f"Bearer {token}" if token else None
