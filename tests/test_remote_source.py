"""A remote file as a source of bytes: few connections, few bytes, nothing fetched twice."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re
from pathlib import Path
from typing import Any

import fsspec
import pytest

from collapse_audit.containers.byte_source import ByteSource
from collapse_audit.errors import IntegrityError, SourceError
from collapse_audit.remote.addresses import Remote, remote_of_url
from collapse_audit.remote.fsspec_files import FsspecFile
from collapse_audit.remote.maintenance import cache_items, clear_cache, verify_cache
from collapse_audit.remote.remote_files import RangesUnusableError
from collapse_audit.remote.remote_source import open_source
from collapse_audit.remote.reporting import SILENT, Reporter
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.remote.whole_files import fetch_file
from tests.loopback_server import Clock, offline

MB = 10**6
DATA = random.Random(5).randbytes(3 * MB)


@pytest.fixture
def remote(server: Any) -> Remote:
    server.files["a.bin"] = DATA
    return remote_of_url(server.url("a.bin"))


def test_a_remote_source_is_a_byte_source(remote: Remote, settings: RemoteSettings) -> None:
    source: ByteSource = open_source(remote, settings, SILENT)
    assert source.size == len(DATA)
    draw = random.Random(6)
    for _ in range(200):
        start = draw.randrange(len(DATA))
        n = min(draw.choice([0, 1, 30, 5_000, 400_000]), len(DATA) - start)
        assert source.read(start, n) == DATA[start : start + n]
    assert source.read(0, source.size) == DATA
    for start, n in [(-1, 2), (0, -1), (len(DATA), 1), (0, len(DATA) + 1), (1, 2**60)]:
        with pytest.raises(SourceError, match="were asked for"):
            source.read(start, n)


def test_an_audit_costs_one_connection_and_little_more_than_the_head(
    server: Any, settings: RemoteSettings
) -> None:
    head, data = 8 * MB, random.Random(7).randbytes(20 * MB)
    server.files["a.pth"] = data
    source = open_source(remote_of_url(server.url("a.pth")), settings, SILENT)
    reads = [(len(data) - 65_536, 65_536), (400, 200_000), (9 * MB, 30), (9 * MB + 30, head)]
    for start, n in [*reads, (9 * MB + 30 + head, 30), (100, 5_000), (9 * MB + 5, 100_000)]:
        assert source.read(start, n) == data[start : start + n]
    assert server.sent < 1.02 * head + 0.5 * MB
    assert server.connections == 1


def test_a_read_inside_what_is_stored_causes_no_request(
    server: Any, remote: Remote, settings: RemoteSettings
) -> None:
    source = open_source(remote, settings, SILENT)
    source.read(MB, MB)
    server.forget()
    again = open_source(remote, settings, SILENT)
    closed = open_source(remote, offline(settings), SILENT)
    for reader in (source, again, closed):
        assert reader.size == len(DATA)
        assert reader.read(MB + 17, 900_000) == DATA[MB + 17 : MB + 900_017]
        assert reader.read(0, 60_000) == DATA[:60_000]
    assert server.requests == []


def test_what_is_not_stored_is_missing_offline(
    server: Any, remote: Remote, settings: RemoteSettings, tmp_path: Path
) -> None:
    empty = dataclasses.replace(offline(settings), cache_dir=tmp_path / "empty")
    with pytest.raises(SourceError, match=r"offline mode is on.*collapse-audit download"):
        open_source(remote, empty, SILENT)
    assert not empty.cache_dir.exists()
    open_source(remote, settings, SILENT)
    server.forget()
    with pytest.raises(SourceError, match=r"offline mode is on.*collapse-audit download"):
        open_source(remote, offline(settings), SILENT).read(MB, 10)
    assert server.requests == []


def test_neighbours_of_a_small_read_come_with_it(
    server: Any, remote: Remote, settings: RemoteSettings
) -> None:
    source = open_source(remote, settings, SILENT)
    server.forget()
    for start in range(MB, MB + 20_000, 30):
        source.read(start, 30)
    assert len(server.requests) <= 2


# -- siblings -------------------------------------------------------------------------------


def test_siblings_share_folder_query_credentials_and_connection(
    server: Any, settings: RemoteSettings
) -> None:
    server.files |= {"run/x.index.json": b"{}", "run/x 1.bin": DATA}
    url = server.url("run/x.index.json?sig=SECRET").replace("http://", "http://me:SECRET@")
    source = open_source(remote_of_url(url), settings, SILENT)
    server.forget()
    shard = source.sibling("x 1.bin")
    assert shard.read(MB, 100) == DATA[MB : MB + 100]
    assert shard.remote.name == server.url("run/x%201.bin")
    assert shard.remote.urls == (url.replace("x.index.json", "x%201.bin"),)
    assert all(headers["Authorization"] for _, _, headers in server.requests)
    with pytest.raises(SourceError, match="404"):
        source.sibling("none.bin")
    assert source.sibling("x.index.json").read(0, 2) == b"{}"
    assert server.connections == 0
    assert {item.source for item in cache_items(settings)} == {
        source.remote.lock_key,
        shard.remote.lock_key,
    }


@pytest.mark.parametrize("name", ["../b", "/etc/passwd", "a/b", "..", ".", "", "c:\\b"])
def test_a_sibling_is_in_the_same_folder(name: str) -> None:
    with pytest.raises(SourceError, match="as a file of its folder"):
        remote_of_url("https://example.org/run/a").sibling(name)


@pytest.mark.parametrize("end", [20 * "a" + "." + 79 * "b", "..x", 79 * "." + "a", "." + 90 * "b"])
def test_file_names_are_those_that_the_cache_takes(end: str) -> None:
    remote = remote_of_url(f"https://h.org/{end}")
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}", remote.file_name)


def test_the_case_of_a_scheme_does_not_matter() -> None:
    assert remote_of_url("HF://org/repo/x.pth") == remote_of_url("hf://org/repo/x.pth")
    beside = remote_of_url("HTTPS://h.org/a/x.pth").sibling("b c.pth")
    assert beside.urls == ("https://h.org/a/b%20c.pth",)


def test_siblings_of_other_addresses() -> None:
    def beside(url: str) -> str:
        return remote_of_url(url).sibling(".metadata").urls[0]

    assert beside("hf://org/repo@v1/sub/a.pth") == "hf://org/repo@v1/sub/.metadata"
    assert beside("s3://bucket/run/a.distcp") == "s3://bucket/run/.metadata"
    row = Remote("row", ("https://a.org/x.pth#?sig=1", "https://b.org/y/x.pth"), sha256="0" * 64)
    other = row.sibling("z")
    assert other == Remote("row/z", ("https://a.org/z#?sig=1", "https://b.org/y/z"))


# -- servers that cannot or will not --------------------------------------------------------


@pytest.mark.parametrize("ranges", ["ignored", "shifted", "false"])
def test_without_true_ranges_the_whole_file_is_read_and_that_is_said_first(
    server: Any,
    remote: Remote,
    settings: RemoteSettings,
    capsys: pytest.CaptureFixture[str],
    ranges: str,
) -> None:
    server.ranges = ranges
    source = open_source(remote, settings, Reporter(bars=False))
    assert source.local is not None
    assert source.local.path.read_bytes() == DATA
    assert source.read(MB, 100) == DATA[MB : MB + 100]
    assert "downloading the whole file, 3.0 MB (the server" in capsys.readouterr().err
    server.forget()
    assert open_source(remote, settings, SILENT).local.path == source.local.path
    assert [item.kind for item in cache_items(settings)] == ["file"]
    assert server.requests == []


@pytest.mark.parametrize("ranges", ["ignored", "shifted"])
def test_a_server_that_stops_sending_parts_is_read_whole_and_the_reader_never_knows(
    server: Any, remote: Remote, settings: RemoteSettings, ranges: str
) -> None:
    source = open_source(remote, settings, SILENT)
    assert source.read(MB, 100) == DATA[MB : MB + 100]
    assert source.local is None
    server.ranges = ranges
    assert source.read(2 * MB, 100) == DATA[2 * MB : 2 * MB + 100]
    assert source.local is not None
    assert [item.kind for item in cache_items(settings)] == ["file"]


def test_a_file_whose_size_is_not_told_is_read_whole_up_to_the_limit(
    server: Any, remote: Remote, settings: RemoteSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    server.ranges, server.untold = "ignored", True
    with pytest.raises(SourceError, match="it does not end, and at most 2,000,000 are fetched"):
        open_source(remote, dataclasses.replace(settings, max_bytes=2 * MB), SILENT)
    source = open_source(remote, settings, Reporter(bars=False))
    assert source.read(0, source.size) == DATA
    assert "downloading the whole file, of unknown size" in capsys.readouterr().err


def test_a_file_whose_checksum_is_known_is_fetched_whole_and_compared(
    remote: Remote, settings: RemoteSettings
) -> None:
    wrong = dataclasses.replace(remote, sha256="0" * 64)
    with pytest.raises(IntegrityError, match="the manifest says 0000"):
        open_source(wrong, settings, SILENT)
    assert cache_items(settings) == ()
    right = dataclasses.replace(remote, sha256=hashlib.sha256(DATA).hexdigest())
    source = open_source(right, settings, SILENT)
    assert source.local is not None
    assert source.read(5, 5) == DATA[5:10]


def test_a_file_of_another_size_than_the_manifest_says_is_refused(
    remote: Remote, settings: RemoteSettings
) -> None:
    for action in (open_source, fetch_file):
        with pytest.raises(IntegrityError, match=r"3,000,000 bytes, the manifest says 17"):
            action(dataclasses.replace(remote, size=17), settings, SILENT)
    assert open_source(dataclasses.replace(remote, size=len(DATA)), settings, SILENT).size


def test_redirects_cost_no_connection_each(server: Any, settings: RemoteSettings) -> None:
    server.files["real.bin"] = DATA
    server.redirects["a.bin"] = "/real.bin"
    source = open_source(remote_of_url(server.url("a.bin")), settings, SILENT)
    for start in range(MB, 2 * MB, 200_000):
        assert source.read(start, 100) == DATA[start : start + 100]
    assert server.connections == 1


def test_redirects_in_the_bytes_of_utf_8_are_followed(
    server: Any, settings: RemoteSettings
) -> None:
    server.files["é é.bin"] = DATA
    server.redirects["a.bin"] = "/é é.bin".encode().decode("latin-1")
    source = open_source(remote_of_url(server.url("a.bin")), settings, SILENT)
    assert source.size == len(DATA)


def test_what_comes_with_a_redirect_is_not_read_to_its_end(
    server: Any, settings: RemoteSettings
) -> None:
    server.files["a.bin"] = DATA
    server.redirects["b.bin"] = "/a.bin"
    server.redirect_body = bytes(50 * MB)
    assert open_source(remote_of_url(server.url("b.bin")), settings, SILENT).size == len(DATA)
    assert server.sent < 40 * MB


def test_a_server_that_drips_its_header_cannot_outlast_the_time_limit(
    server: Any, remote: Remote, settings: RemoteSettings
) -> None:
    server.header_pause = 1
    with pytest.raises(SourceError, match=r"does not answer|gave up"):
        open_source(remote, dataclasses.replace(settings, limit_seconds=0.5), SILENT)
    assert server.sent == 0


def test_the_time_limit_counts_the_time_of_reading_only(
    remote: Remote, settings: RemoteSettings, clock: Clock
) -> None:
    source = open_source(remote, settings, SILENT)
    clock.sleep(settings.limit_seconds + 1)
    assert source.read(MB, 10) == DATA[MB : MB + 10]


def test_the_time_limit_is_for_all_reads_together(
    server: Any, remote: Remote, settings: RemoteSettings, clock: Clock
) -> None:
    source = open_source(remote, settings, SILENT)
    server.forget()
    server.stall, server.wait = 0.3 * settings.limit_seconds, clock.sleep

    def read_on() -> None:
        for start in range(MB, 2 * MB, 100_000):
            source.read(start, 10)

    with pytest.raises(SourceError, match="gave up"):
        read_on()
    assert len(server.requests) == 4  # of 0.3 of the limit each


def test_a_part_of_a_file_above_the_limit_is_read_and_the_whole_of_it_is_not(
    remote: Remote, settings: RemoteSettings
) -> None:
    source = open_source(remote, dataclasses.replace(settings, max_bytes=MB), SILENT)
    assert source.read(MB, 10) == DATA[MB : MB + 10]
    with pytest.raises(SourceError, match="at most 1,000,000 are fetched"):
        source.read(MB, 2 * MB)


def test_passwords_of_netrc_are_not_sent(
    server: Any,
    remote: Remote,
    settings: RemoteSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    open_source(remote, settings, SILENT)
    assert all("Authorization" not in headers for _, _, headers in server.requests)


@pytest.mark.parametrize("ranges", ["ignored", "false"])
def test_a_file_that_came_with_the_first_answer_needs_no_ranges(
    server: Any, settings: RemoteSettings, ranges: str
) -> None:
    server.files["x.json"], server.ranges = DATA[:50_000], ranges
    source = open_source(remote_of_url(server.url("x.json")), settings, SILENT)
    assert source.read(49_000, 1_000) == DATA[49_000:50_000]
    assert len(server.requests) == 1
    assert source.local is None


# -- files that change, caches that are damaged ---------------------------------------------


def test_a_file_that_changes_between_reads_is_an_error_and_the_cache_stays_intact(
    server: Any, remote: Remote, settings: RemoteSettings
) -> None:
    for requests in range(1, 6):
        server.forget()
        server.change_after = requests
        fresh = dataclasses.replace(settings, cache_dir=settings.cache_dir / str(requests))

        def read(fresh: RemoteSettings = fresh) -> None:
            source = open_source(remote, fresh, SILENT)
            for start in (MB, 2 * MB, 3 * MB - 10, 700_000):
                source.read(start, 10)

        with pytest.raises(SourceError, match="changed on the server"):
            read()
        assert not any(problem for _, problem in verify_cache(fresh))


@pytest.mark.parametrize("etag", ['"one"', None])
def test_a_file_that_changed_since_it_was_read_first_is_not_mixed_with_what_is_stored(
    server: Any, remote: Remote, settings: RemoteSettings, etag: str | None
) -> None:
    server.etag = etag
    open_source(remote, settings, SILENT).read(MB, 10)
    server.files["a.bin"] = bytes(len(DATA))
    if etag:  # else the first bytes must show it
        server.files["a.bin"] = DATA[:MB] + bytes(2 * MB)
        server.etag = '"two"'
    again = open_source(remote, settings, SILENT)
    with pytest.raises(SourceError, match=r"changed .* since it was read first.*cache clear"):
        again.read(2 * MB, 10)
    clear_cache(settings)
    assert open_source(remote, settings, SILENT).read(2 * MB, 10) == bytes(10)


def test_a_damaged_part_is_named_and_fetched_again(
    server: Any, remote: Remote, settings: RemoteSettings
) -> None:
    open_source(remote, settings, SILENT).read(MB, MB)
    item = max(cache_items(settings), key=lambda item: item.size)
    content = bytearray(item.path.read_bytes())
    content[-1] ^= 1
    item.path.write_bytes(content)
    damaged = [found for found in verify_cache(settings) if found[1]]
    assert damaged == [(item, "its SHA-256 is not the recorded one")]
    with pytest.raises(SourceError, match="offline mode is on"):
        open_source(remote, offline(settings), SILENT).read(MB, MB)
    server.forget()
    source = open_source(remote, settings, SILENT)
    assert source.read(MB + 500_000, 10) == DATA[MB + 500_000 : MB + 500_010]
    assert server.sent < 200_000
    assert source.read(MB, MB) == DATA[MB : 2 * MB]
    assert server.sent < 1.2 * MB
    assert not any(problem for _, problem in verify_cache(settings))
    assert {item.kind for item in cache_items(settings)} == {"range"}


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"version": {"size": 1}}', b'{"version": 3}'])
def test_a_damaged_index_costs_another_fetch_and_nothing_else(
    remote: Remote, settings: RemoteSettings, content: bytes
) -> None:
    open_source(remote, settings, SILENT).read(MB, 10)
    (path,) = settings.cache_dir.rglob("index.json")
    path.write_bytes(content)
    assert open_source(remote, settings, SILENT).read(0, len(DATA)) == DATA


def test_a_part_that_vanishes_is_fetched_again(remote: Remote, settings: RemoteSettings) -> None:
    source = open_source(remote, settings, SILENT)
    source.read(MB, 100)
    clear_cache(settings)
    assert source.read(MB, 100) == DATA[MB : MB + 100]
    max(cache_items(settings), key=lambda item: item.part).path.unlink()
    assert source.read(MB, 100) == DATA[MB : MB + 100]


def test_an_interrupted_part_goes_on_where_it_stopped(
    server: Any, remote: Remote, settings: RemoteSettings
) -> None:
    impatient = dataclasses.replace(settings, retries=0)
    open_source(remote, impatient, SILENT)
    server.cut_after = (800_000, 1)
    with pytest.raises(SourceError, match="cut off"):
        open_source(remote, impatient, SILENT).read(MB, 2 * MB)
    assert [item.size for item in cache_items(settings) if item.kind == "partial"] == [800_000]
    server.forget()
    assert open_source(remote, settings, SILENT).read(MB, 2 * MB) == DATA[MB:]
    assert server.sent < 1_200_000 + 4 * 32_768
    assert {item.kind for item in cache_items(settings)} == {"range"}


def test_a_part_is_not_resumed_with_other_bytes(
    server: Any, remote: Remote, settings: RemoteSettings
) -> None:
    open_source(remote, settings, SILENT)
    server.cut_after = (800_000, 1)
    with pytest.raises(SourceError, match="cut off"):
        open_source(remote, dataclasses.replace(settings, retries=0), SILENT).read(MB, 2 * MB)
    (item,) = (item for item in cache_items(settings) if item.kind == "partial")
    item.path.write_bytes(bytes(item.size))  # what a power failure may leave
    source = open_source(remote, settings, SILENT)
    assert source.read(MB, 2 * MB) == DATA[MB:]
    assert source.local is None


def test_two_readers_of_one_file_see_what_the_other_has_fetched(
    server: Any, remote: Remote, settings: RemoteSettings
) -> None:
    one, two = (open_source(remote, settings, SILENT) for _ in range(2))
    one.read(MB, MB)
    server.forget()
    assert two.read(MB, MB) == DATA[MB : 2 * MB]
    assert server.requests == []


def test_files_of_fsspec_are_resumed_only_with_the_same_bytes(settings: RemoteSettings) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/a.bin", DATA * 3)
    file = FsspecFile("memory://bucket/a.bin", settings)
    assert b"".join(file.stream(100, 50, DATA[60:100])) == DATA[100:150]
    with pytest.raises(RangesUnusableError):
        list(file.stream(100, 50, DATA[:40]))
    stream = file.stream(0, None)
    next(stream)
    memory.pipe("/bucket/a.bin", bytes(9 * MB))
    with pytest.raises(SourceError, match="changed on the server while"):
        list(stream)


# -- https ----------------------------------------------------------------------------------


@pytest.fixture
def https(tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The certificate of the server, which from now on speaks https."""
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    if server.encrypt(tmp_path):
        return tmp_path / "certificate.pem"
    pytest.skip("no openssl to make a certificate with")


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_certificates_are_verified_with_those_of_the_environment(
    server: Any,
    settings: RemoteSettings,
    https: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    server.files["a.bin"] = DATA
    remote = remote_of_url(server.url("a.bin"))
    with pytest.raises(SourceError, match=r"certificate is not valid .*SSL_CERT_FILE"):
        open_source(remote, settings, SILENT)
    monkeypatch.setenv(variable, str(https))
    assert open_source(remote, settings, SILENT).read(MB, 10) == DATA[MB : MB + 10]


def test_a_redirect_from_https_to_http_is_never_followed(
    server: Any, settings: RemoteSettings, https: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(https))
    server.redirects["a.bin"] = "http://127.0.0.1:9/a.bin"
    with pytest.raises(SourceError, match=r"sends on to http://.*, which is not https"):
        open_source(remote_of_url(server.url("a.bin")), settings, SILENT)
