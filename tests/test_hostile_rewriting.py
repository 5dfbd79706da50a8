"""Files that another program writes while they are audited, and audits side by side."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from collapse_audit.auditing import audit_source
from collapse_audit.errors import CollapseAuditError, SourceError
from collapse_audit.sources import resolve_source


def truncated(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        for start in range(0, len(data), 4096):
            file.write(data[start : start + 4096])
            file.flush()


def replaced(path: Path, data: bytes) -> None:
    path.with_suffix(".new").write_bytes(data)
    path.with_suffix(".new").replace(path)


def appended(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data[:1000])


def in_place(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)


WAYS = {way.__name__: way for way in (truncated, replaced, appended, in_place)}
Write = Callable[[Path, bytes], None]


def states(folder: Path, suffix: str) -> dict[int, bytes]:
    """Two states of one file, of one size, by their number of unique prototypes."""
    found = {}
    for unique in (5, 9):
        directions = np.random.default_rng(unique).standard_normal((unique, 16))
        weight = torch.from_numpy(directions[np.arange(200) % unique].astype("f4"))
        state = {"head.last_layer.weight": weight, "backbone": torch.ones(20_000)}
        path = folder / f"{unique}{suffix}"
        torch.save(state, path) if suffix == ".pth" else save_file(state, path)
        found[unique] = path.read_bytes()
    return found


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_was_opened_is_what_is_read_and_hashed(
    tmp_path: Path, suffix: str, way: Write
) -> None:
    first, second = states(tmp_path, suffix).values()
    for loaded in (False, True):
        path = tmp_path / f"run{suffix}"
        path.write_bytes(first)
        resolved = resolve_source(path)
        heads = resolved.select(branch="teacher", head=None)
        if loaded:
            resolved.load(heads)
        way(path, second)
        with pytest.raises(SourceError, match="changed while it was read"):
            resolved.sha256() if loaded else resolved.load(heads)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_an_audit_of_a_file_that_is_written_gives_one_state_or_one_line(
    tmp_path: Path, suffix: str, way: Write
) -> None:
    known = states(tmp_path, suffix)
    digests = {hashlib.sha256(data).hexdigest(): unique for unique, data in known.items()}
    path = tmp_path / f"run{suffix}"
    path.write_bytes(known[5])
    stop = threading.Event()

    def keep_writing() -> None:
        draw = random.Random(0)
        while not stop.is_set():
            for data in known.values():
                if way is appended:
                    path.write_bytes(data)
                way(path, data)
                stop.wait(draw.random() / 100)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    lines = 0
    try:
        for _ in range(25):
            try:
                (audited,) = audit_source(path, sweep=False, nearest=False)
            except CollapseAuditError as error:
                lines += len(str(error).splitlines()) - 1
                continue
            assert audited.num_unique in known
            if audited.source.sha256 in digests:  # else something was appended to it
                assert digests[audited.source.sha256] == audited.num_unique
            else:
                assert way is appended
    finally:
        stop.set()
        writer.join()
    assert lines == 0


def test_six_threads_give_what_one_gives(tmp_path: Path) -> None:
    for suffix in (".pth", ".safetensors"):
        states(tmp_path, suffix)
    paths = sorted(tmp_path.iterdir()) * 6

    def counted(path: Path) -> tuple[int, str | None]:
        (audited,) = audit_source(path, sweep=False)
        return audited.num_unique, audited.source.sha256

    alone = [counted(path) for path in paths]
    with ThreadPoolExecutor(6) as six:
        assert list(six.map(counted, paths)) == alone
