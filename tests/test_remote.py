"""The network manners, the cache and its promises."""

from __future__ import annotations

import dataclasses
import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from collapse_audit.errors import CollapseAuditError, IntegrityError, SourceError
from collapse_audit.manifest import load_manifest
from collapse_audit.remote.addresses import Remote, is_remote, remote_of_entry, remote_of_url
from collapse_audit.remote.locking import check_and_record
from collapse_audit.remote.maintenance import cache_items, clear_cache, verify_cache
from collapse_audit.remote.remote_source import open_source
from collapse_audit.remote.reporting import SILENT, Reporter
from collapse_audit.remote.settings import RemoteSettings, platform_cache_dir
from collapse_audit.remote.transfers import exclusive
from collapse_audit.remote.whole_files import fetch_file
from tests.loopback_server import Clock, serve


def read_all(remote: Remote, settings: RemoteSettings, reporter: Reporter = SILENT) -> bytes:
    source = open_source(remote, settings, reporter)
    return source.read(0, source.size)


def files_of(settings: RemoteSettings) -> list[Path]:
    return [path for path in settings.cache_dir.rglob("*") if path.is_file()]


# -- what the server says -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "needs a login"),
        (403, "Not allowed: the link may have expired"),
        (404, "No such file: check the address"),
        (410, "was removed"),
        (418, "Open the address in a browser"),
    ],
)
def test_a_refusal_says_what_to_do_and_is_not_repeated(
    server: Any, settings: RemoteSettings, status: int, message: str
) -> None:
    server.statuses = [(status, {})] * 5
    with pytest.raises(SourceError, match=message):
        open_source(remote_of_url(server.url("a.pth")), settings, SILENT)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_trouble_that_passes_is_waited_for(
    server: Any, settings: RemoteSettings, small_dino: bytes, status: int
) -> None:
    server.statuses = [(status, {}), (status, {"Retry-After": "0"})]
    remote = serve(server, small_dino)
    assert read_all(remote, settings) == small_dino


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (429, r"429 Too Many Requests \(4 attempts\).*try again later"),
        (503, "server is in trouble"),
    ],
)
def test_trouble_that_stays_ends_after_the_retries(
    server: Any, settings: RemoteSettings, status: int, message: str
) -> None:
    server.statuses = [(status, {})] * 10
    with pytest.raises(SourceError, match=message):
        open_source(remote_of_url(server.url("a.pth")), settings, SILENT)
    assert len(server.requests) == 4


def test_a_server_that_asks_for_an_hour_is_not_waited_for(
    server: Any, settings: RemoteSettings
) -> None:
    server.statuses = [(429, {"Retry-After": "3600"})] * 2
    with pytest.raises(SourceError, match="asks to wait 3,600 s"):
        open_source(remote_of_url(server.url("a.pth")), settings, SILENT)
    assert len(server.requests) == 1


def test_a_web_page_instead_of_a_checkpoint_is_recognised(
    server: Any, settings: RemoteSettings
) -> None:
    remote = serve(server, b"\n <!DOCTYPE html><html>Please log in</html>")
    with pytest.raises(SourceError, match="a web page, not a checkpoint"):
        read_all(remote, settings)
    assert not cache_items(settings)


def test_an_empty_file_is_an_error(server: Any, settings: RemoteSettings) -> None:
    with pytest.raises(SourceError, match="empty"):
        read_all(serve(server, b""), settings)


def test_a_server_that_compresses_unasked_is_refused(
    server: Any, settings: RemoteSettings, small_dino: bytes
) -> None:
    server.encoding = "gzip"
    with pytest.raises(SourceError, match="compresses what it sends"):
        read_all(serve(server, small_dino), settings)


def test_a_connection_that_breaks_is_resumed_where_it_broke(
    server: Any, settings: RemoteSettings, legacy_dino: bytes
) -> None:
    server.cut_after = (700_000, 2)
    path = fetch_file(serve(server, legacy_dino), settings, SILENT)
    assert path.read_bytes() == legacy_dino
    assert server.sent < len(legacy_dino) + 100_000


def test_a_break_without_ranges_starts_over_and_ends_right(
    server: Any, settings: RemoteSettings, legacy_dino: bytes
) -> None:
    server.ranges, server.cut_after = "ignored", (700_000, 2)
    path = fetch_file(serve(server, legacy_dino), settings, SILENT)
    assert path.read_bytes() == legacy_dino


@pytest.mark.parametrize("ranges", ["false", "shifted"])
def test_a_break_with_a_server_that_lies_about_ranges_ends_right(
    server: Any, settings: RemoteSettings, small_dino: bytes, ranges: str
) -> None:
    server.ranges, server.cut_after = ranges, (90_000, 1)
    remote = serve(server, small_dino)
    assert fetch_file(remote, settings, SILENT).read_bytes() == small_dino


def test_a_partial_file_is_not_resumed_with_a_server_that_lies_about_ranges(
    server: Any, settings: RemoteSettings, small_dino: bytes
) -> None:
    remote = serve(server, small_dino)
    server.cut_after = (90_000, 1)
    with pytest.raises(SourceError, match="cut off"):
        fetch_file(remote, dataclasses.replace(settings, retries=0), SILENT)
    server.ranges = "false"
    assert fetch_file(remote, settings, SILENT).read_bytes() == small_dino


@pytest.mark.parametrize("ranges", ["right", "ignored"])
def test_a_server_that_promises_more_than_it_sends_is_given_up(
    server: Any, settings: RemoteSettings, legacy_dino: bytes, ranges: str
) -> None:
    server.ranges, server.promise = ranges, 1000
    remote = serve(server, legacy_dino)
    if ranges == "right":  # the range tells the truth about the size
        assert fetch_file(remote, settings, SILENT).read_bytes() == legacy_dino
        return
    with pytest.raises(SourceError, match="cut off after"):
        fetch_file(remote, settings, SILENT)
    assert all(item.kind == "partial" for item in cache_items(settings))


def test_a_stalled_server_is_given_up_in_time(server: Any, settings: RemoteSettings) -> None:
    server.stall = 600
    serve(server, bytes(1000))
    short = dataclasses.replace(settings, stall_seconds=0.1, retries=1)
    with pytest.raises(SourceError, match=r"does not answer \(2 attempts\)"):
        open_source(remote_of_url(server.url("checkpoint.pth")), short, SILENT)


def test_a_server_that_drips_cannot_outlast_the_time_limit(
    server: Any, settings: RemoteSettings, clock: Clock
) -> None:
    data = bytes(64 << 20)  # far more than waits in the buffers of a connection
    server.pause, server.wait = 0.4 * settings.limit_seconds, clock.sleep
    with pytest.raises(SourceError, match=r"does not answer|gave up after 600 s"):
        fetch_file(serve(server, data), settings, SILENT)
    assert server.sent < len(data)


def test_nobody_listening_is_an_error_in_words(settings: RemoteSettings) -> None:
    quick = dataclasses.replace(settings, retries=0)
    with pytest.raises(SourceError, match="connection failed"):
        open_source(remote_of_url("http://127.0.0.1:9/a.pth"), quick, SILENT)


def test_files_above_the_limit_are_refused_before_and_during_the_transfer(
    server: Any, settings: RemoteSettings, legacy_dino: bytes
) -> None:
    tight = dataclasses.replace(settings, max_bytes=100_000)
    with pytest.raises(SourceError, match="at most 100,000 are fetched"):
        fetch_file(serve(server, legacy_dino), tight, SILENT)
    assert server.sent <= 1 << 16


# -- addresses ------------------------------------------------------------------------------


def test_plain_http_is_refused_unless_asked_for(server: Any, settings: RemoteSettings) -> None:
    secure = dataclasses.replace(settings, insecure_http=False)
    with pytest.raises(SourceError, match=r"plain http is refused.*insecure_http=True"):
        open_source(remote_of_url(server.url("a")), secure, SILENT)
    assert server.requests == []


def test_redirects_are_followed(server: Any, settings: RemoteSettings, small_dino: bytes) -> None:
    serve(server, small_dino, "real.pth")
    server.redirects["short.pth"] = server.url("real.pth?sig=secret")
    remote = remote_of_url(server.url("short.pth"))
    assert read_all(remote, settings) == small_dino


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a"])
def test_redirects_to_other_schemes_are_refused(
    server: Any, settings: RemoteSettings, target: str
) -> None:
    server.redirects["a.pth"] = target
    with pytest.raises(SourceError, match=r"which is not https|is not allowed"):
        open_source(remote_of_url(server.url("a.pth")), settings, SILENT)


def test_a_circle_of_redirects_ends(server: Any, settings: RemoteSettings) -> None:
    server.redirects["a.pth"] = server.url("a.pth")
    with pytest.raises(SourceError, match="redirect"):
        open_source(remote_of_url(server.url("a.pth")), settings, SILENT)


def test_a_token_stays_with_the_host_it_is_for(
    server: Any, settings: RemoteSettings, small_dino: bytes
) -> None:
    serve(server, small_dino, "real.pth")
    elsewhere = server.url("real.pth").replace("127.0.0.1", "localhost")
    server.redirects["a.pth"] = elsewhere
    with_user = server.url("a.pth").replace("http://", "http://me:secret@")
    open_source(remote_of_url(with_user), settings, SILENT)
    (first, _, asked), (second, _, sent_on) = server.requests[:2]
    assert (first, second) == ("a.pth", "real.pth")
    assert asked["Authorization"].startswith("Basic ")
    assert "Authorization" not in sent_on


def test_secrets_are_in_no_message_and_in_no_file(
    server: Any,
    settings: RemoteSettings,
    small_dino: bytes,
    legacy_dino: bytes,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.files |= {"a.pth": small_dino, "b.pth": legacy_dino, "c.pth": b"<html>"}
    messages = []
    for name in ("a.pth", "b.pth", "c.pth", "missing.pth"):
        url = server.url(f"{name}?sig=TOPSECRET").replace("http://", "http://user:TOPSECRET@")
        try:
            remote, told = remote_of_url(url), Reporter(bars=False)
            if name == "b.pth":
                fetch_file(remote, settings, told)
            read_all(remote, settings, told)
            check_and_record(remote, {"tensor:x": "0" * 64}, settings)
        except CollapseAuditError as error:
            messages.append(str(error))
    assert len(messages) == 2
    captured = capsys.readouterr()
    text = "".join(messages) + captured.err + captured.out + settings.lock_file.read_text()
    assert "TOPSECRET" not in text
    assert len(files_of(settings)) > 4
    for path in files_of(settings):
        assert b"TOPSECRET" not in path.read_bytes()
        assert "TOPSECRET" not in str(path)


def test_queries_tell_files_apart(server: Any) -> None:
    one, two = (remote_of_url(server.url(f"get.pth?id={i}")) for i in (1, 2))
    assert one.name == two.name
    assert one.key != two.key
    assert one.lock_key != two.lock_key


def test_any_scheme_of_fsspec_works(settings: RemoteSettings, small_dino: bytes) -> None:
    fsspec.filesystem("memory").pipe("/bucket/dino.pth", small_dino)
    fsspec.filesystem("memory").pipe("/bucket/dino.json", b"{}")
    source = open_source(remote_of_url("memory://bucket/dino.pth"), settings, SILENT)
    assert source.read(70_000, 1000) == small_dino[70_000:71_000]
    assert source.read(0, source.size) == small_dino
    assert source.sibling("dino.json").read(0, 2) == b"{}"
    assert source.local is None


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/none.pth", "no such file"),
        ("nonsense://bucket/a.pth", "cannot be read"),
        ("https:///a.pth", "names no file"),
        ("https://example.org/", "names no file"),
        ("https://[::1/a.pth", "not an address"),
        ("https://example.org:abc/a.pth", "not an address"),
        ("hf://org/a.pth", "Write hf://ORG/REPO/FILE"),
    ],
)
def test_addresses_that_lead_nowhere(settings: RemoteSettings, url: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_all(remote_of_url(url), settings)


def test_hub_addresses_go_through_the_hub(
    server: Any, settings: RemoteSettings, small_dino: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    endpoint = server.url("").rstrip("/")
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(
        "huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False
    )
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.files["org/repo/resolve/v1/sub/a.pth"] = small_dino
    remote = remote_of_url("hf://org/repo@v1/sub/a.pth")
    assert read_all(remote, settings) == small_dino
    assert server.requests[0][2]["Authorization"] == "Bearer hf_secret"


def test_paths_are_no_addresses() -> None:
    assert not any(is_remote(source) for source in ("a.pth", "C:/a.pth", "dino_vits16", "./a:b"))
    assert not is_remote(Path("https://a"))


def test_a_row_that_cannot_be_fetched_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = load_manifest().entries
    manual = next(entry for entry in entries if entry.fetch == "manual")
    with pytest.raises(SourceError, match=r"cannot be fetched automatically.*in a browser"):
        remote_of_entry(manual)
    signed = next(entry for entry in entries if entry.query_env)
    monkeypatch.delenv(str(signed.query_env), raising=False)
    with pytest.raises(SourceError, match=f"{signed.query_env} is not set"):
        remote_of_entry(signed)
    monkeypatch.setenv(str(signed.query_env), "?sig=TOPSECRET")
    remote = remote_of_entry(signed)
    assert "TOPSECRET" not in remote.identity + remote.key + remote.lock_key + remote.name
    assert remote.urls[0].endswith("?sig=TOPSECRET")


def test_mirrors_are_tried_in_turn(
    server: Any, settings: RemoteSettings, small_dino: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(server, small_dino, "b.pth")
    remote = Remote("x", (server.url("a.pth"), server.url("b.pth")))
    assert read_all(remote, settings, Reporter(bars=False)) == small_dino
    assert "Trying the mirror" in capsys.readouterr().err


def test_proxies_of_the_environment_are_used(
    server: Any, settings: RemoteSettings, small_dino: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["http://checkpoints.invalid/a.pth"] = small_dino
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, server.url("").rstrip("/"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    remote = remote_of_url("http://checkpoints.invalid/a.pth")
    assert read_all(remote, settings) == small_dino


# -- other tools' files ---------------------------------------------------------------------


def test_a_file_of_torch_hub_is_read_and_not_written(
    settings: RemoteSettings,
    small_dino: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "full.pth").write_bytes(small_dino)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    remote = Remote("x", ("https://example.org/full.pth",), hub_name="full.pth")
    closed = dataclasses.replace(settings, offline=True)
    source = open_source(remote, closed, Reporter(bars=False))
    assert source.local.path == folder / "full.pth"
    assert source.read(10, 90) == small_dino[10:100]
    assert "x: using " in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["full.pth"]
    wrong = dataclasses.replace(remote, sha256="0" * 64)
    with pytest.raises(SourceError, match="offline mode is on"):
        read_all(wrong, closed)


def test_a_file_of_the_hub_cache_is_read_offline(
    settings: RemoteSettings, small_dino: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hub" / "models--org--repo"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "snapshots" / "abc" / "a.pth").write_bytes(small_dino)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    closed = dataclasses.replace(settings, offline=True)
    assert read_all(remote_of_url("hf://org/repo/a.pth"), closed) == small_dino
    assert not files_of(settings)


# -- settings -------------------------------------------------------------------------------


def test_the_cache_folder_follows_option_variable_and_platform(tmp_path: Path) -> None:
    env = {"COLLAPSE_AUDIT_CACHE": str(tmp_path / "b"), "XDG_CACHE_HOME": str(tmp_path / "c")}
    of = RemoteSettings.from_environment
    assert of(cache_dir=tmp_path / "a", environ=env).cache_dir == tmp_path / "a"
    assert of(environ=env).cache_dir == tmp_path / "b"
    del env["COLLAPSE_AUDIT_CACHE"]
    assert platform_cache_dir(env, "linux") == tmp_path / "c" / "collapse-audit"
    assert platform_cache_dir({}, "darwin").parts[-3:] == ("Library", "Caches", "collapse-audit")
    windows = platform_cache_dir({"LOCALAPPDATA": str(tmp_path)}, "win32")
    assert windows == tmp_path / "collapse-audit"


@pytest.mark.parametrize("name", ["COLLAPSE_AUDIT_OFFLINE", "HF_HUB_OFFLINE"])
def test_both_variables_switch_the_network_off(name: str) -> None:
    assert RemoteSettings.from_environment(environ={name: "1"}).offline
    assert not RemoteSettings.from_environment(environ={name: "0"}).offline


def test_the_lock_file_of_the_project_wins_over_the_one_in_the_cache(
    settings: RemoteSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = dataclasses.replace(settings, lock_path=None)
    monkeypatch.chdir(tmp_path)
    assert plain.lock_file == settings.cache_dir / "collapse_audit.lock"
    (tmp_path / "collapse_audit.lock").touch()
    assert plain.lock_file == tmp_path / "collapse_audit.lock"


def test_a_damaged_lock_file_is_not_overwritten(
    server: Any, settings: RemoteSettings, small_dino: bytes
) -> None:
    settings.lock_file.write_text("[]")
    with pytest.raises(SourceError, match="not a lock file"):
        fetch_file(serve(server, small_dino), settings, SILENT)
    assert settings.lock_file.read_text() == "[]"


def test_a_whole_file_that_changed_is_refused_and_removed(
    server: Any, settings: RemoteSettings, legacy_dino: bytes
) -> None:
    remote = serve(server, legacy_dino)
    fetch_file(remote, settings, SILENT)
    clear_cache(settings)
    server.files["checkpoint.pth"] = legacy_dino[:-1] + bytes([legacy_dino[-1] ^ 1])
    with pytest.raises(IntegrityError, match="when it was fetched first"):
        fetch_file(remote, settings, SILENT)
    assert cache_items(settings) == ()


# -- interruptions --------------------------------------------------------------------------

WORKER = """
import os, sys
import filelock, requests  # before the first fork: they cost more than the rest
from contextlib import contextmanager
from pathlib import Path
from collapse_audit.remote.addresses import remote_of_url
from collapse_audit.remote.remote_source import open_source
from collapse_audit.remote.reporting import Reporter
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.remote.whole_files import fetch_file
from tests.kills import Operations, kill_now

settings = RemoteSettings(cache_dir=Path(sys.argv[1]), insecure_http=True)

class Counter(Reporter):
    kill_from = None

    @contextmanager
    def bar(self, title, total, done=0):
        arrived = 0

        def update(count):
            nonlocal arrived
            arrived += count
            if self.kill_from is not None and arrived >= self.kill_from:
                kill_now()

        yield update

for line in sys.stdin:
    what, url, unit, number = line.split()
    if not os.fork():
        Counter.kill_from = int(number) if unit == "byte" else None
        operations = Operations(settings.cache_dir, int(number) if unit == "operation" else None)
        reporter = Counter(notes=False)
        if what == "file":
            fetch_file(remote_of_url(url), settings, reporter)
        else:
            source = open_source(remote_of_url(url), settings, reporter)
            for start, length in [(source.size - 90_000, 90_000), (500_000, 2_000_000)]:
                source.read(start, length)
        print(operations.count, flush=True)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture
def fetch_apart(settings: RemoteSettings, repository: Path) -> Iterator[Callable[..., list[int]]]:
    """Fetches in a process that may be killed: what it printed, and its exit code."""
    command = [sys.executable, "-c", WORKER, str(settings.cache_dir)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, cwd=repository) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None

        def fetch(what: str, url: str, unit: str = "-", number: int = 0) -> list[int]:
            worker.stdin.write(f"{what} {url} {unit} {number}\n")
            worker.stdin.flush()
            first = int(worker.stdout.readline())
            return [first] if first < 0 else [first, int(worker.stdout.readline())]

        yield fetch
        worker.stdin.close()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["file", "parts"])
def test_a_kill_anywhere_leaves_nothing_that_passes_for_complete(
    server: Any,
    settings: RemoteSettings,
    fetch_apart: Callable[..., list[int]],
    what: str,
) -> None:
    plain = dataclasses.replace(settings, lock_path=None)
    draw = random.Random(7)
    data = server.files["a.pth"] = draw.randbytes(3_000_000)
    url = server.url("a.pth")
    fetch_apart(what, url)  # which makes the folders of the cache
    clear_cache(plain)
    operations, code = fetch_apart(what, url)
    assert code == 0
    kills = [("operation", number) for number in range(operations)]
    kills += [("byte", number) for number in draw.sample(range(1, 2_000_000), 12)]
    for unit, number in kills:
        clear_cache(plain)
        assert fetch_apart(what, url, unit, number) == [-signal.SIGKILL]
        kept = [item.kind for item in cache_items(plain)]
        assert "partial" in kept or unit == "operation"
        assert not any(problem for _, problem in verify_cache(plain))
        remote = remote_of_url(url)
        if what == "file":
            assert fetch_file(remote, plain, SILENT).read_bytes() == data
        else:
            part = open_source(remote, plain, SILENT).read(500_000, 2_000_000)
            assert part == data[500_000:2_500_000]
        assert not any(problem for _, problem in verify_cache(plain))


def test_a_killed_download_goes_on_where_it_stopped(
    server: Any, settings: RemoteSettings, legacy_dino: bytes
) -> None:
    remote = serve(server, legacy_dino)
    server.cut_after = (800_000, 1)
    with pytest.raises(SourceError, match="cut off"):
        fetch_file(remote, dataclasses.replace(settings, retries=0), SILENT)
    (item,) = cache_items(settings)
    assert (item.kind, item.size) == ("partial", 800_000)
    server.forget()
    assert fetch_file(remote, settings, SILENT).read_bytes() == legacy_dino
    assert server.sent < len(legacy_dino) - 800_000 + (1 << 16) + 2048  # opening and overlap


def test_a_partial_file_of_another_version_is_not_resumed(
    server: Any, settings: RemoteSettings, legacy_dino: bytes
) -> None:
    remote = serve(server, bytes(len(legacy_dino)))
    server.cut_after = (800_000, 1)
    with pytest.raises(SourceError, match="cut off"):
        fetch_file(remote, dataclasses.replace(settings, retries=0), SILENT)
    server.files["checkpoint.pth"], server.etag = legacy_dino, '"two"'
    assert fetch_file(remote, settings, SILENT).read_bytes() == legacy_dino


def test_two_processes_fetch_once(server: Any, settings: RemoteSettings, repository: Path) -> None:
    serve(server, random.Random(8).randbytes(3_000_000))
    server.pause = 0.001
    command = [sys.executable, "-c", WORKER, str(settings.cache_dir)]
    line = f"parts {server.url('checkpoint.pth')} - 0\n"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = [subprocess.Popen(command, **pipes, text=True, cwd=repository) for _ in range(2)]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(line)
        process.stdin.close()
    for process in running:
        with process:
            assert process.stdout is not None
            assert process.stdout.read().split()[1] == "0"
    assert server.sent < 1.2 * 2_000_000


def test_waiting_for_another_process_ends(settings: RemoteSettings, tmp_path: Path) -> None:
    from filelock import FileLock

    with (
        FileLock(tmp_path / "a.lock"),
        pytest.raises(SourceError, match="another process"),
        exclusive(tmp_path / "a", dataclasses.replace(settings, limit_seconds=0.1)),
    ):
        pass


def test_a_cache_that_cannot_be_written_is_an_error_in_words(
    server: Any, settings: RemoteSettings, small_dino: bytes, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    closed = dataclasses.replace(settings, cache_dir=tmp_path / "file" / "cache")
    with pytest.raises(SourceError, match="cache_dir=FOLDER"):
        read_all(serve(server, small_dino), closed)


def test_clearing_one_source_leaves_the_others(
    server: Any, settings: RemoteSettings, small_dino: bytes
) -> None:
    one, two = serve(server, small_dino, "one.pth"), serve(server, small_dino, "two.pth")
    for remote in (one, two):
        fetch_file(remote, settings, SILENT)
    assert clear_cache(settings, (one.key,)) > 0
    assert {item.source for item in cache_items(settings)} == {two.lock_key}
    assert json.loads(settings.lock_file.read_text())["sources"].keys() == {
        one.lock_key,
        two.lock_key,
    }
