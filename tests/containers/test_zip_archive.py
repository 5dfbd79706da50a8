"""Zip archives of which two readers could see two contents, or that ask for more than they hold."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest

from collapse_audit.containers.opening import read_checkpoint
from collapse_audit.errors import CheckpointError
from tests.small_checkpoints import (
    GOOD_FILES,
    WEIGHT,
    MemorySource,
    head,
    read_bytes,
    read_every_tensor,
    rezipped,
    saved,
    zip_of,
)

GOOD = rezipped(saved({"prototypes": WEIGHT}))
ENTRY, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"


def member_of_the_values(data: bytes = GOOD) -> tuple[int, int]:
    """Where the head's local header and its entry in the directory begin."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = next(info for info in archive.infolist() if info.file_size == WEIGHT.nbytes)
    name = info.filename.encode()
    return info.header_offset, data.index(name, data.index(ENTRY)) - 46


def patched(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def test_the_archive_that_is_changed_below_is_good() -> None:
    np.testing.assert_array_equal(read_bytes(GOOD).tensors["prototypes"].read(), WEIGHT.numpy())


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["archive/data.pkl", "archive/DATA.pkl", "Archive/data.pkl"])
def test_members_of_one_name_in_any_spelling_are_refused(name: str) -> None:
    buffer = io.BytesIO(GOOD)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(name, b"\x80\x02N.")
    with pytest.raises(CheckpointError, match=r"'archive/data\.pkl' appears more than once"):
        read_bytes(buffer.getvalue())


def test_a_name_with_a_zero_byte_is_the_name_before_it_and_must_not_repeat_another() -> None:
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        last = archive.infolist()[-1]
    name = b"archive/data.pkl\0"
    assert len(last.filename) >= len(name)
    place = GOOD.rindex(last.filename.encode())
    with pytest.raises(CheckpointError, match=r"'archive/data\.pkl' appears more than once"):
        read_bytes(patched(GOOD, place, name))


def test_a_second_directory_before_the_first_is_refused() -> None:
    start = GOOD.index(ENTRY)
    directory, end = GOOD[start : GOOD.index(END)], GOOD[GOOD.index(END) :]
    twice = GOOD[:start] + directory + directory + end
    for offset in (start, start + len(directory)):
        data = patched(twice, len(twice) - 6, struct.pack("<I", offset))
        if offset == start + len(directory):  # the first is a member that nobody names
            assert read_bytes(data).tensors["prototypes"].read().shape == WEIGHT.shape
            continue
        with pytest.raises(CheckpointError, match="two directories"):
            read_bytes(data)


def test_a_zip64_directory_that_says_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 64)
    large = rezipped(GOOD)
    np.testing.assert_array_equal(read_bytes(large).tensors["prototypes"].read(), WEIGHT.numpy())
    record, locator = large.index(b"PK\x06\x06"), large.index(b"PK\x06\x07")
    other = struct.unpack("<Q", large[record + 48 : record + 56])[0] - 1
    for data in (
        patched(large, record + 48, struct.pack("<Q", other)),
        patched(large, locator + 8, struct.pack("<Q", 2**62)),
        patched(large, locator + 8, struct.pack("<Q", locator)),
        patched(large, large.index(END) + 16, struct.pack("<I", 7)),
    ):
        with pytest.raises(CheckpointError, match="zip"):
            read_bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"before" + GOOD, "not a checkpoint format known here"),
        (LOCAL + b"before" + GOOD, "something before the archive"),
        (GOOD + b"behind", "something follows the directory|cannot be read"),
        (GOOD[:-2] + b"\x03\x00abc", "something follows the directory"),
        (GOOD + GOOD, "something before the archive"),
    ],
)
def test_anything_before_or_behind_the_archive_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_bytes(data)


def test_members_that_overlap_are_refused() -> None:
    header, entry = member_of_the_values()
    first = GOOD.index(ENTRY)
    for place in (header, header - 10, header + 10):
        with pytest.raises(CheckpointError, match="lies inside another"):
            read_bytes(patched(GOOD, first + 42, struct.pack("<I", place)))
    with pytest.raises(CheckpointError, match=r"lies inside another|two sizes|reaches beyond"):
        read_bytes(patched(GOOD, entry + 20, struct.pack("<I", WEIGHT.nbytes + 40)))


def test_a_stored_member_of_two_sizes_is_refused() -> None:
    _, entry = member_of_the_values()
    for place in (entry + 20, entry + 24):  # packed, unpacked
        for size in (WEIGHT.nbytes - 8, WEIGHT.nbytes + 8):
            with pytest.raises(CheckpointError, match=r"has two sizes|lies inside another"):
                read_bytes(patched(GOOD, place, struct.pack("<I", size)))


def test_a_member_beyond_the_end_is_refused() -> None:
    _, entry = member_of_the_values()
    for field, new in (
        (entry + 20, struct.pack("<II", 2**30, 2**30)),
        (entry + 42, struct.pack("<I", 2**31)),
    ):
        with pytest.raises(
            CheckpointError, match=r"reaches beyond the [\d,]+ bytes|lies inside an"
        ):
            read_bytes(patched(GOOD, field, new))


@pytest.mark.parametrize(
    ("offset", "new"),
    [(0, b"PK\x05\x05"), (6, b"\x01\x00"), (8, b"\x08\x00"), (26, b"\xff\xff"), (28, b"\xff\xff"),
     (30, b"Archive")],
    ids=["signature", "encrypted", "method", "length of the name", "length of the rest", "name"],
)  # fmt: skip
def test_a_local_header_that_disagrees_with_the_directory_is_refused(
    offset: int, new: bytes
) -> None:
    header, _ = member_of_the_values()
    checkpoint = read_bytes(patched(GOOD, header + offset, new))
    with pytest.raises(CheckpointError, match="its zip directory points to places without a memb"):
        checkpoint.tensors["prototypes"].read()


@pytest.mark.parametrize("name", [name for name in GOOD_FILES if GOOD_FILES[name][:2] == b"PK"])
def test_a_zip_version_that_there_is_not_is_damage(name: str) -> None:
    content = GOOD_FILES[name]
    later = patched(content, content.index(ENTRY) + 6, bytes([99]))  # 9.9, where 6.3 is the last
    with pytest.raises(CheckpointError, match=r"damaged zip .*zip file version 9\.9"):
        read_every_tensor(read_bytes(later))


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_compression_that_torch_does_not_use_is_refused(method: int) -> None:
    with pytest.raises(CheckpointError, match="in a way that neither torch nor numpy uses"):
        read_bytes(rezipped(GOOD, compression=method))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_huge_index_is_refused_before_reading(method: int) -> None:
    bomb = b"\x80\x02" + b"N0" * 30_000_000
    source = MemorySource(zip_of({"bomb/data.pkl": bomb}, compression=method))
    with pytest.raises(CheckpointError, match=r"declares 60\.0 MB; it was not read"):
        read_checkpoint(source, "bomb")
    assert source.bytes_read < 300_000


def test_an_index_that_unpacks_to_more_than_it_declares_is_damage() -> None:
    data = zip_of({"a/data.pkl": b"\x80\x02" + b"N0" * 10**6}, compression=zipfile.ZIP_DEFLATED)
    entry = data.index(ENTRY)
    with pytest.raises(CheckpointError, match="damaged"):
        read_bytes(patched(data, entry + 24, struct.pack("<I", 1000)))


def test_a_directory_of_very_many_members_is_not_read() -> None:
    directory = (ENTRY + bytes(24) + struct.pack("<H", 65_000) + bytes(16) + b"x" * 65_000) * 600
    end = struct.pack("<4s4H2LH", END, 0, 0, 600, 600, len(directory), 30, 0)
    source = MemorySource(LOCAL + bytes(26) + directory + end)
    with pytest.raises(CheckpointError, match="larger than"):
        read_checkpoint(source, "bomb")
    assert source.bytes_read < 1_000_000


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"photo.jpg": b"x"}, r"neither torch's .* nor numpy's .*unpack it first"),
        ({"w.npy": b"", "photo.jpg": b"x"}, r"neither torch's .* nor numpy's"),
        ({"config.json": b"{}", "model.weights.h5": b"x"}, "a Keras archive"),
        ({"archive_format": b"pt2"}, r"of torch\.export"),
    ],
)
def test_other_archives_are_named(members: dict[str, bytes], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_bytes(zip_of(members))


def test_an_archive_without_members_is_no_checkpoint() -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint format known here"):
        read_bytes(zip_of({}))


def test_a_directory_hidden_in_a_comment_is_refused() -> None:
    hidden = rezipped(saved(head()))
    with pytest.raises(CheckpointError, match="zip"):
        read_bytes(GOOD[:-2] + struct.pack("<H", len(hidden)) + hidden)
