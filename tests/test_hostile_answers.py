"""Answers of servers that state what is not so: right bytes, or one line, and soon."""

from __future__ import annotations

import random
import re
import socketserver
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from collapse_audit.errors import CollapseAuditError
from collapse_audit.remote.addresses import remote_of_url
from collapse_audit.remote.remote_source import open_source
from collapse_audit.remote.reporting import SILENT
from collapse_audit.remote.settings import RemoteSettings

VALUES = (
    "", "0", "-1", "+5", "1e3", "1.5", "\uff19", "0x10", str(2**31), str(2**63), "9" * 5000, "*",
    "bytes", "bytes 0-0/0", "bytes 5-1/9", "bytes */*", "bytes 0-65535/*", f"bytes 0-1/{2**64}",
    f"bytes {2**63}-{2**63}/{2**64}", "bytes 0-65535/99999999999999999", "\xff\xfe", "a, b",
    "x" * 9000,
    "W/", '"', "Thu, 99 Foo 0000", "chunked", "gzip", "identity", "none", "bytes=0-1",
)  # fmt: skip
HEADERS = (
    "Content-Range", "Content-Length", "ETag", "Last-Modified", "Accept-Ranges", "Retry-After",
    "Content-Encoding", "Transfer-Encoding", "Location", "Content-Type", "Set-Cookie",
)  # fmt: skip
STATUSES = (200, 200, 206, 206, 206, 204, 301, 304, 400, 416, 429, 503, 999)


class Liar(socketserver.StreamRequestHandler):
    """Answers with a file under headers of which one or two are something else."""

    data, draw = b"", random.Random(0)

    def handle(self) -> None:
        lines = []
        while (line := self.rfile.readline().strip()) and len(lines) < 100:
            lines.append(line.decode("latin-1"))
        wanted = re.search(r"Range: bytes=(\d+)-(\d*)", "\n".join(lines), re.IGNORECASE)
        start = int(wanted[1]) if wanted else 0
        end = min(
            int(wanted[2] or len(self.data)) if wanted else len(self.data), len(self.data) - 1
        )
        body = self.data[start : end + 1]
        headers = {
            "Content-Length": str(len(body)), "ETag": '"a"', "Accept-Ranges": "bytes",
            "Content-Range": f"bytes {start}-{end}/{len(self.data)}",
        }  # fmt: skip
        for _ in range(self.draw.choice((0, 1, 1, 2))):
            name = self.draw.choice(HEADERS)
            headers[name] = self.draw.choice(VALUES)
            if self.draw.random() < 0.2:
                del headers[name]
        status = self.draw.choice(STATUSES) if self.draw.random() < 0.3 else 206
        if self.draw.random() < 0.1:
            body = self.draw.choice((b"", body[:-1], body[:100]))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        answer = f"HTTP/1.1 {status} x\r\n{head}Connection: close\r\n\r\n"
        with suppress(OSError):
            self.wfile.write(answer.encode("utf-8") + body)


def test_whatever_a_server_states_its_bytes_are_those_of_the_file_or_it_is_said(
    tmp_path: Path, small_dino: bytes
) -> None:
    read, refused = 0, Counter[str]()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Liar) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        Liar.data = small_dino
        for seed in range(300):
            Liar.draw = random.Random(seed)
            settings = RemoteSettings(
                cache_dir=tmp_path / str(seed), insecure_http=True, retries=0, limit_seconds=4,
                stall_seconds=1, lock_path=tmp_path / "lock",
            )  # fmt: skip
            url = f"http://127.0.0.1:{server.server_address[1]}/{seed}.pth"
            began = time.monotonic()
            try:
                source = open_source(remote_of_url(url), settings, SILENT)
                data = [source.read(at, 10) for at in (0, len(small_dino) - 10)]
            except CollapseAuditError as error:
                refused[type(error).__name__] += len(str(error).splitlines())
            else:
                read += 1
                assert source.size != len(small_dino) or data == [small_dino[:10], small_dino[-10:]]
            assert time.monotonic() - began < 10
        server.shutdown()
    assert read > 50
    assert sum(refused.values()) == 300 - read
