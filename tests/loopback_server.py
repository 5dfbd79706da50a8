"""A web server on the loopback address that behaves as well or as badly as a test wants."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from collapse_audit.remote.addresses import Remote, remote_of_url
from collapse_audit.remote.settings import RemoteSettings

_BLOCK = 1 << 16


def remote_settings(folder: Path) -> RemoteSettings:
    """Settings for this server: all is kept in a folder, and no limit of time is met by chance."""
    return RemoteSettings(
        cache_dir=folder / "cache",
        insecure_http=True,
        stall_seconds=60,
        limit_seconds=600,
        retries=3,
        backoff_seconds=0.01,
        lock_path=folder / "collapse_audit.lock",
    )


def offline(settings: RemoteSettings) -> RemoteSettings:
    """The same settings without the network."""
    return replace(settings, offline=True)


def serve(server: LoopbackServer, data: bytes, name: str = "checkpoint.pth") -> Remote:
    """Put a file on the server, and say where it is."""
    server.files[name] = data
    return remote_of_url(server.url(name))


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class LoopbackServer:
    """Serves files from memory and counts what it sends.

    Attributes:
        files: Content by name.
        ranges: ``"right"``, ``"ignored"`` (200 and the whole file), ``"shifted"`` (206 with another
            range) or ``"false"`` (the right header, the wrong bytes).
        statuses: Answered one by one before anything else, each with the headers beside it.
        cut_after: Bytes of a body after which the connection is closed, and how often.
        stall: Seconds of silence before a body.
        pause: Seconds between blocks of 64 KiB.
        header_pause: Seconds between the lines of a header that takes 50 of them.
        wait: How it waits; a test may give it a clock of its own.
        etag: Tag of every answer; ``None`` for none.
        change_after: Requests after which the tag and the bytes are others.
        untold: Whether the length of a body is not told; its end is that of the connection.
        encoding: Content-Encoding that every answer claims.
        promise: Added to the true Content-Length.
        redirects: New address by name.
        redirect_body: What comes with it.
        sent: Bytes of all bodies.
        connections: How many were accepted; one stays open for request after request.
        requests: Name and range of every request, with its headers.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = "right"
        self.statuses: list[tuple[int, dict[str, str]]] = []
        self.cut_after: tuple[int, int] | None = None
        self.stall = 0.0
        self.pause = 0.0
        self.header_pause = 0.0
        self.wait: Callable[[float], object] = time.sleep
        self.etag: str | None = '"one"'
        self.change_after: int | None = None
        self.promise = 0
        self.untold = False
        self.encoding = ""
        self.redirects: dict[str, str] = {}
        self.redirect_body = b""
        self.sent = 0
        self.connections = 0
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer on an open connection waits 40 ms

            def setup(self) -> None:
                with server.lock:
                    server.connections += 1
                super().setup()

            def handle(self) -> None:
                with suppress(ConnectionResetError):  # a client that has seen enough
                    super().handle()

            def do_GET(self) -> None:
                try:
                    _answer(server, self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        self._scheme = "http"
        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def url(self, name: str) -> str:
        return f"{self._scheme}://127.0.0.1:{self._httpd.server_port}/{name}"

    def encrypt(self, folder: Path) -> bool:
        """Speak https from now on; False if there is no openssl to make a certificate with."""
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-keyout", str(key), "-out", str(certificate)]
        if shutil.which("openssl") is None:
            return False
        subprocess.run(command, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._httpd.socket = context.wrap_socket(self._httpd.socket, server_side=True)
        self._scheme = "https"
        return True

    def forget(self) -> None:
        self.sent = self.connections = 0
        self.requests.clear()

    def close(self) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()
        self._thread.join()


def _answer(server: LoopbackServer, handler: BaseHTTPRequestHandler) -> None:
    name = unquote(handler.path.partition("?")[0]).lstrip("/")
    wanted = handler.headers.get("Range", "")
    with server.lock:
        server.requests.append((name, wanted, dict(handler.headers)))
        count = len(server.requests)
        refusal = server.statuses.pop(0) if server.statuses else None
    if refusal is not None:
        _send(handler, refusal[0], b"", refusal[1], server)
    elif name in server.redirects:
        _send(handler, 302, server.redirect_body, {"Location": server.redirects[name]}, server)
    elif name not in server.files:
        _send(handler, 404, b"", {}, server)
    else:
        _send_file(server, handler, server.files[name], wanted, count)


def _send_file(
    server: LoopbackServer, handler: BaseHTTPRequestHandler, data: bytes, wanted: str, count: int
) -> None:
    etag = server.etag
    if server.change_after is not None and count > server.change_after:
        data, etag = bytes(len(data)), etag and '"two"'
    headers = {"ETag": etag} if etag else {}
    if server.encoding:
        headers["Content-Encoding"] = server.encoding
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
    if match is None or server.ranges == "ignored":
        _send(handler, 200, data, headers, server)
        return
    start, size = int(match[1]), len(data)
    end = min(int(match[2]) + 1 if match[2] else size, size)
    if start >= end:
        _send(handler, 416, b"", {"Content-Range": f"bytes */{size}"}, server)
        return
    stated, body = start, data[start:end]
    if server.ranges == "shifted" and start:
        stated, body = start - 1, data[start - 1 : end - 1]
    if server.ranges == "false":
        body = data[: end - start]
    headers["Content-Range"] = f"bytes {stated}-{stated + len(body) - 1}/{size}"
    _send(handler, 206, body, headers, server)


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str],
    server: LoopbackServer,
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    for line in range(50 if server.header_pause else 0):
        handler.send_header(f"X-{line}", "")
        handler.flush_headers()
        server.wait(server.header_pause)
    promise = server.promise if body else 0
    if not (server.untold and body):
        handler.send_header("Content-Length", str(len(body) + promise))
    handler.end_headers()
    if body and server.stall:
        server.wait(server.stall)
    end = len(body)
    if server.cut_after is not None and body and server.cut_after[1] > 0 < end:
        limit, times = server.cut_after
        if end > limit:
            end, server.cut_after = limit, (limit, times - 1)
    for start in range(0, end, _BLOCK):
        block = body[start : min(start + _BLOCK, end)]
        handler.wfile.write(block)
        with server.lock:
            server.sent += len(block)
        if server.pause:
            server.wait(server.pause)
    if end < len(body) or promise or server.untold:
        handler.close_connection = True
