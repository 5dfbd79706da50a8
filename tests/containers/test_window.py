"""A byte source as a file: the same bytes for any way of asking, and not more than allowed."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit.containers import window
from collapse_audit.containers.window import Window
from collapse_audit.errors import CheckpointError
from tests.small_checkpoints import MemorySource

DATA = bytes(range(256)) * 2
steps = st.one_of(
    st.tuples(st.just("read"), st.integers(-1, 300)),
    st.tuples(st.just("seek"), st.integers(0, 600)),
    st.tuples(st.just("ahead"), st.integers(-20, 20)),
    st.tuples(st.just("from the end"), st.integers(-400, 0)),
)


@given(block=st.integers(1, 200), first=st.integers(1, 600), asked=st.lists(steps, max_size=20))
def test_it_is_a_file(block: int, first: int, asked: list[tuple[str, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "_BLOCK", block)
        found: io.RawIOBase = Window(MemorySource(DATA), "file", limit=10**6, first=first)
        expected = io.BytesIO(DATA)
        for kind, number in asked:
            if kind == "read":
                assert found.read(number) == expected.read(number)
            elif kind == "seek":
                assert found.seek(number) == expected.seek(number)
            elif kind == "from the end":
                assert found.seek(number, io.SEEK_END) == expected.seek(number, io.SEEK_END)
            elif expected.tell() + number >= 0:
                assert found.seek(number, io.SEEK_CUR) == expected.seek(number, io.SEEK_CUR)
            assert found.tell() == expected.tell()


def test_it_starts_where_it_is_told_and_never_before_the_file() -> None:
    found = Window(MemorySource(DATA), "file", limit=1000, start=7)
    assert found.read(3) == DATA[7:10]
    with pytest.raises(ValueError, match="before the file"):
        found.seek(-1)


def test_more_than_the_limit_is_refused_until_it_is_allowed() -> None:
    source = MemorySource(DATA)
    found = Window(source, "file", limit=100, first=50)
    assert found.read(80) == DATA[:80]
    with pytest.raises(CheckpointError, match="file: its index is larger than"):
        found.read(200)
    assert source.bytes_read <= 100
    found.allow(1000)
    assert found.read(200) == DATA[80:280]


def test_what_was_read_ahead_is_not_read_again() -> None:
    source = MemorySource(DATA)
    found = Window(source, "file", limit=10**6, first=len(DATA))
    assert b"".join(iter(lambda: found.read(7), b"")) == DATA
    assert source.bytes_read == len(DATA)
