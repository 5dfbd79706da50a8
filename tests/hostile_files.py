"""Files that mean harm, small and made here: bombs, lies about sizes, two readings of one file."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.fuzz_programs import MAGIC

K, D = 12, 4
ROWS = np.random.default_rng(0).standard_normal((K, D)).astype("<f4")
KEY = "last_layer.weight"


@dataclass(frozen=True, slots=True)
class Hostile:
    """A kind of file.

    Attributes:
        name: What is wrong with it.
        build: Puts it into a folder and returns what is to be opened.
        says: Pattern of the refusal; nothing if it is read, for what is wrong with it does no harm.
        described: Whether ``info`` describes it though ``audit`` refuses it.
    """

    name: str
    build: Callable[[Path], Path]
    says: str = ""
    described: bool = False


KINDS: dict[str, Hostile] = {}
Build = Callable[[Path], Path]


def kind(says: str = "", *, described: bool = False) -> Callable[[Build], Build]:
    """Note a builder."""

    def note(build: Build) -> Build:
        name = build.__name__.replace("_", " ")
        KINDS[name] = Hostile(name, build, says, described)
        return build

    return note


# -- pickles --------------------------------------------------------------------------------


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    data = value.to_bytes(size, "little", signed=True)
    return b"\x8b" + struct.pack("<i", size) + data if size > 255 else b"\x8a%c" % size + data


def name(module: str, of: str) -> bytes:
    return f"c{module}\n{of}\n".encode()


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str = "0", kind: str = "Float", numel: int = K * D, more: bytes = b"") -> bytes:
    place = "torch.storage" if kind == "Untyped" else "torch"
    parts = text("storage"), name(place, f"{kind}Storage"), text(key), text("cpu"), number(numel)
    return b"(" + b"".join(parts) + more + b"tQ"


def view(
    shape: tuple[int, ...] = (K, D), strides: tuple[int, ...] = (D, 1), of: bytes = b"",
    offset: int = 0,
) -> bytes:  # fmt: skip
    """The arguments of the function that makes a tensor."""
    of = of or storage()
    return b"(" + of + number(offset) + numbers(shape) + numbers(strides) + b"\x89}t"


def tensor(
    shape: tuple[int, ...] = (K, D), strides: tuple[int, ...] = (D, 1), of: bytes = b"",
    offset: int = 0,
) -> bytes:  # fmt: skip
    return name("torch._utils", "_rebuild_tensor_v2") + view(shape, strides, of, offset) + b"R"


def items(*pairs: tuple[bytes, bytes]) -> bytes:
    """A dictionary, the outermost."""
    return b"\x80\x02}(" + b"".join(key + value for key, value in pairs) + b"u."


HEAD = (text(KEY), tensor())


def beside(value: bytes, key: bytes = text("x")) -> bytes:
    """A dictionary of prototypes and something else before them."""
    return items((key, value), HEAD)


def torch_zip(program: bytes, *, more: dict[str, bytes] | None = None, packed: int = 0) -> bytes:
    members = {"data.pkl": program, "byteorder": b"little", "version": b"3\n"}
    members |= {"data/0": ROWS.tobytes()}
    return zipped({f"a/{k}": v for k, v in (members | (more or {})).items()}, packed)


def zipped(members: dict[str, bytes], packed: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packed) as archive:
        for member, data in members.items():
            archive.writestr(zipfile.ZipInfo(member), data, packed)
    return buffer.getvalue()


def legacy(program: bytes, keys: object = ("0",), count: int = K * D) -> bytes:
    keys = list(keys) if isinstance(keys, tuple) else keys
    head = [pickle.dumps(v, 2) for v in (MAGIC, 1001, {"little_endian": True})]
    values = struct.pack("<Q", count) + ROWS.tobytes()
    return b"".join([*head, program, pickle.dumps(keys, 2), values])


def pth(says: str = "", **options: bool) -> Callable[[Callable[[], bytes]], object]:
    """Note a torch file: its program, inside a zip, unless it is a whole file already."""

    def note(make: Callable[[], bytes]) -> object:
        def build(folder: Path) -> Path:
            data = make()
            whole = data.startswith((b"PK", b"\x80\x02\x8a\x0a"))
            (folder / "a.pth").write_bytes(data if whole else torch_zip(data))
            return folder / "a.pth"

        build.__name__ = make.__name__
        return kind(says, **options)(build)

    return note


@pth("makes calls that make calls")
def three_thousand_calls_inside_one_another() -> bytes:
    call, kind = name("torch._tensor", "_rebuild_from_type_v2"), name("torch", "Tensor")
    inner = b"(" + name("torch._utils", "_rebuild_tensor_v2") + kind + view() + b"}t"
    return items((text(KEY), call + (b"(" + call + kind) * 3000 + inner + b"}t" * 3000 + b"R"))


@pth()
def nested_tuples_as_a_key() -> bytes:
    return beside(b"})q\0" + b"h\0\x86q\0" * 60 + b"Ns")


@pth("over 1,500,000 operations")
def an_ordered_dict_made_again_and_again() -> bytes:
    pairs = b"](" + b"".join(b"(" + text(f"{i}") + b"Nt" for i in range(5000)) + b"eq\0"
    again = name("collections", "OrderedDict") + b"h\0\x85R0"
    return beside(pairs + again * 2000)


@pth("over 1,500,000 operations")
def a_dictionary_copied_again_and_again() -> bytes:
    held = b"}(" + b"".join(text(f"{i}") + b"N" for i in range(5000)) + b"uq\0"
    return beside(held + (name("collections", "defaultdict") + b"Nh\0\x86R0") * 2000)


@pth()
def many_lists_of_one_another() -> bytes:
    return beside(b"]q\0" + b"0](h\0h\0eq\0" * 20_000)


@pth("over 1,500,000 operations")
def a_memo_of_a_million_entries() -> bytes:
    return beside(b"N" + b"\x94" * 1_600_000)


@pth()
def a_large_memo() -> bytes:
    return beside(b"}" + b"".join(b"r" + struct.pack("<I", 3 * i) for i in range(300_000)))


@pth()
def a_place_far_out_in_the_memo() -> bytes:
    return beside(b"Nr\xff\xff\xff\xff")


@pth("not a natural number")
def a_shape_of_20_000_bits() -> bytes:
    return items((text(KEY), tensor((1 << 20_000, D))))


@pth()
def a_stride_of_2_to_the_62_at_size_1() -> bytes:
    return items((text(KEY), tensor((K * D, 1), (1, 1 << 62))))


@pth("not a natural number")
def scales_of_minus_one_by_zero() -> bytes:
    return items((text("last_layer.weight_v"), tensor()),
                 (text("last_layer.weight_g"), tensor((-1, 0), (1, 1))))  # fmt: skip


@pth("0 weight-norm scales", described=True)
def scales_of_zero_by_2_to_the_62() -> bytes:
    return items((text("last_layer.weight_v"), tensor()),
                 (text("last_layer.weight_g"), tensor((0, 1 << 62), (1 << 62, 1))))  # fmt: skip


@pth("a stack of 1,099,511,627,776 matrices")
def a_stack_of_2_to_the_40_views_of_one_row() -> bytes:
    return items((text("prototypes"), tensor((1 << 40, K, D), (0, D, 1))))


@pth("its storage has only 192 bytes", described=True)
def a_storage_larger_than_its_member() -> bytes:
    return items((text(KEY), tensor((K + 3, D), of=storage(numel=(K + 3) * D))))


@pth("its storage has only 192 bytes", described=True)
def a_tensor_of_2_to_the_62_values() -> bytes:
    return items((text(KEY), tensor((1 << 31, 1 << 31), (1 << 31, 1), storage(numel=1 << 62))))


@pth("over only 4 stored bytes", described=True)
def an_expanded_view() -> bytes:
    return items((text(KEY), tensor((1 << 20, 1 << 20), (0, 0))))


@pth()
def an_empty_key() -> bytes:
    return items((text(""), tensor()))


@pth()
def a_key_of_a_megabyte() -> bytes:
    return items((text("x" * 1_000_000 + "."), b"N"), HEAD)


@pth()
def a_key_of_megabytes_in_many_dictionaries() -> bytes:
    key = text("\x1b" * 5_000_000) + b"q\0" + tensor() + b"q\1"
    return beside(b"](" + key + b"00" + b"}h\0h\1s" * 10_000 + b"e")


@pth()
def bytes_of_megabytes_as_a_key_of_many_dictionaries() -> bytes:
    key = b"B" + struct.pack("<I", 5_000_000) + bytes(5_000_000) + b"q\0" + tensor() + b"q\1"
    return beside(b"](" + key + b"00" + b"}h\0h\1s" * 10_000 + b"e")


@pth()
def a_number_of_a_million_digits_as_a_key() -> bytes:
    return beside(b"}" + number(10**100_000) + tensor() + b"s")


@pth()
def an_object_of_endless_text_as_a_key() -> bytes:
    lists = b"]q\0" + b"0](h\0h\0eq\0" * 100
    return beside(b"}" + name("some", "Where") + b")\x81" + lists + b"b" + tensor() + b"s")


@pth("a name of absurd length")
def a_name_of_megabytes_again_and_again() -> bytes:
    return beside(text("a" * 5_000_000) + b"q\0" + text("b") + b"q\1" + b"h\0h\1\x930" * 100_000)


@pth()
def thirty_thousand_names() -> bytes:
    return beside(b"N" + b"".join(name("a", f"{i}") + b"0" for i in range(30_000)))


@pth("over 200,000 tensors")
def modules_that_share_a_dictionary() -> bytes:
    held = b"}(" + b"".join(text(f"{i}") + b"h\0" for i in range(100_000)) + b"uq\1"
    state = b"}" + text("_parameters") + b"h\1sq\2"
    module = name("torch.nn", "Linear") + b"q\3"
    first = tensor() + b"q\0" + held + state + module + b"0000"
    return beside(b"](" + first + b"h\3)\x81h\2b" * 5_000 + b"e")


@pth()
def objects_that_share_two_states() -> bytes:
    held = b"}(" + b"".join(text(f"{i}") + b"N" for i in range(100_000)) + b"uq\1"
    state = b"h\1h\1\x86q\2" + name("some", "Where") + b"q\3"
    return beside(b"](" + held + state + b"000" + b"h\3)\x81h\2b" * 20_000 + b"e")


@pth()
def ten_thousand_dictionaries_inside_one_another() -> bytes:
    return beside((b"}" + text("a")) * 10_000 + tensor() + b"s" * 10_000)


@pth()
def objects_that_hold_themselves() -> bytes:
    cycle = name("torch.nn", "Linear") + b")\x81q\0}q\1" + text("_modules") + b"}"
    return beside(cycle + text("a") + b"h\0s" + b"sb")


@pth("index ends in ValueError")
def a_byte_array_of_a_terabyte() -> bytes:
    return beside(b"\x96" + struct.pack("<Q", 1 << 40) + bytes(10))


@pth("index ends in|larger than")
def a_byte_array_of_a_terabyte_in_a_legacy_file() -> bytes:
    return legacy(beside(b"\x96" + struct.pack("<Q", 1 << 40) + bytes(10)))


@pth("larger than")
def a_text_that_fills_a_legacy_file() -> bytes:
    return legacy(beside(b"X\xff\xff\xff\x7f" + bytes(40_000_000)))


@pth()
def a_call_of_bytearray_with_five_billion() -> bytes:
    return beside(name("builtins", "bytearray") + number(5 * 10**9) + b"\x85R")


@pth("names os.system")
def a_call_of_the_system() -> bytes:
    return beside(name("os", "system") + text("true") + b"\x85R")


@pth("gives a tensor other values")
def another_storage_for_a_tensor() -> bytes:
    state = b"(" + storage("1") + number(0) + numbers((K, D)) + numbers((D, 1)) + b"t"
    return torch_zip(items((text(KEY), tensor() + state + b"b")), more={"data/1": bytes(4 * K * D)})


@pth("gives a tensor other values")
def other_values_by_an_attribute() -> bytes:
    function = name("torch._utils", "_rebuild_parameter_with_state")
    state = b"}" + text("data") + tensor() + b"s"
    return items((text(KEY), function + b"(" + tensor() + b"\x89}" + state + b"tR"))


def device_tensor(raw: bytes, shape: tuple[int, ...] = (K, D)) -> bytes:
    """A tensor of a device, whose values numpy has written into the pickle."""
    array = name("numpy._core.multiarray", "_reconstruct") + name("numpy", "ndarray")
    array += numbers((0,)) + b"C\1b\x87R(" + number(1) + numbers(shape)
    array += name("numpy", "dtype") + text("f4") + b"\x89\x89\x87R(" + number(3) + text("<")
    array += b"NNN" + number(-1) * 2 + number(0) + b"tb\x89" + raw + b"tb"
    call = name("torch._utils", "_rebuild_device_tensor_from_numpy")
    return call + b"(" + array + name("torch", "float32") + text("xla:0") + b"\x89tR"


def raw(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


@pth()
def a_tensor_of_a_device() -> bytes:
    return items((text(KEY), device_tensor(raw(ROWS.tobytes()))))


@pth("no prototypes in this file", described=True)
def a_tensor_of_a_device_with_a_value_too_few() -> bytes:
    return items((text(KEY), device_tensor(raw(ROWS.tobytes()[4:]))))


@pth("no prototypes in this file", described=True)
def a_tensor_of_a_device_of_endless_text() -> bytes:
    lists = b"]q\0" + b"0](h\0h\0eq\0" * 100
    encoded = name("_codecs", "encode") + b"h\0" + text("latin1") + b"\x86R"
    return beside(lists)[:-1] + b"0" + items((text(KEY), device_tensor(encoded)))[2:]


@pth("no prototypes in this file", described=True)
def a_tensor_of_a_device_of_2_to_the_60_values() -> bytes:
    return items((text(KEY), device_tensor(raw(b""), (1 << 40, 1 << 20))))


@pth()
def many_tensors_of_a_device_of_one_array() -> bytes:
    large = device_tensor(raw(bytes(4 << 20)), (1 << 20,)) + b"q\0"
    return beside(b"](" + large + b"h\0" * 5000 + b"e")


@pth("described twice")
def one_storage_of_two_types() -> bytes:
    return items(HEAD, (text("other"), tensor(of=storage(kind="Int"))))


# -- zip archives ---------------------------------------------------------------------------


@pth()
def a_packed_index() -> bytes:
    return torch_zip(items(HEAD), packed=zipfile.ZIP_DEFLATED)


@pth("declares 60.0 MB")
def a_packed_index_of_60_megabytes() -> bytes:
    return torch_zip(b"\x80\x02" + b"N0" * 30_000_000, packed=zipfile.ZIP_DEFLATED)


@pth("unpacks to 2,147.5 MB", described=True)
def a_packed_storage_of_two_gigabytes() -> bytes:
    rows = (1 << 31) // (4 * D)
    program = items((text(KEY), tensor((rows, D), of=storage(numel=rows * D))))
    return with_packed(torch_zip(program, more={"data/0": packed(1 << 28)}), "a/data/0", 1 << 31)


@pth("is damaged", described=True)
def a_packed_storage_that_goes_on_and_on() -> bytes:
    data = torch_zip(items(HEAD), more={"data/0": packed(1 << 28)})
    return with_packed(data, "a/data/0", 4 * K * D)


def packed(size: int) -> bytes:
    """Many zeros, deflated."""
    packer = zlib.compressobj(9, wbits=-15)
    return b"".join(packer.compress(bytes(1 << 24)) for _ in range(size >> 24)) + packer.flush()


def with_packed(archive: bytes, member: str, size: int) -> bytes:
    """An archive whose directory says that a member is deflated, and how large it is unpacked."""
    data = bytearray(archive)
    place = data.rindex(member.encode()) - 46
    struct.pack_into("<H", data, data.index(member.encode()) - 30 + 8, zipfile.ZIP_DEFLATED)
    struct.pack_into("<H", data, place + 10, zipfile.ZIP_DEFLATED)
    struct.pack_into("<L", data, place + 24, size)
    return bytes(data)


@pth("instead of one")
def two_indices() -> bytes:
    return zipped({"a/data.pkl": items(HEAD), "b/data.pkl": items(HEAD)})


@pth("instead of one")
def two_indices_of_which_torch_takes_another() -> bytes:
    return zipped({"a/data.pkl": items(HEAD), "data.pkl": items(HEAD), "data/0": ROWS.tobytes()})


@pth("20000 indices")
def twenty_thousand_indices() -> bytes:
    return zipped({f"{i}/data.pkl": b"" for i in range(20_000)})


@pth("appears more than once")
def names_that_differ_in_case() -> bytes:
    return torch_zip(items(HEAD), more={"DATA.PKL": items()})


@pth("something follows the directory")
def a_zip_with_a_comment() -> bytes:
    buffer = io.BytesIO(torch_zip(items(HEAD)))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"x" * 100
    return buffer.getvalue()


@pth("two directories, or something before")
def something_before_the_archive() -> bytes:
    return torch_zip(items()) + torch_zip(items(HEAD))


@pth("cannot be read")
def a_directory_of_zip64_that_is_not_there() -> bytes:
    data = torch_zip(items(HEAD))
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 1 << 60, 1)
    return data[:-22] + locator + data[-22:]


@pth("cannot be read")
def a_second_directory_of_zip64() -> bytes:
    data = torch_zip(items(HEAD))
    end = struct.unpack("<4s4H2LH", data[-22:])
    large = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 46, end[6] + 9)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(data) - 22, 1)
    return data[:-22] + large + locator + data[-22:]


@pth("its checksum is not", described=True)
def a_bit_of_a_tensor_turned_over() -> bytes:
    data = bytearray(torch_zip(items(HEAD)))
    data[data.index(ROWS.tobytes()) + 17] ^= 4
    return bytes(data)


@pth("has two sizes")
def a_member_that_is_stored_and_larger() -> bytes:
    data = bytearray(torch_zip(items(HEAD)))
    struct.pack_into("<L", data, data.rindex(b"a/data.pkl") - 46 + 24, 5_000_000)
    return bytes(data)


@pth("lies inside another")
def members_inside_one_another() -> bytes:
    data = bytearray(torch_zip(items(HEAD)))
    struct.pack_into("<L", data, data.rindex(b"a/byteorder") - 46 + 42, 3)
    return bytes(data)


@pth("larger than")
def a_directory_of_half_a_million_members() -> bytes:
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 5,
                        0, 0, 0, 0, 0, 0)  # fmt: skip
    count = 500_000
    directory = b"".join(entry + b"%05x" % i for i in range(count))
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(directory), 4, 0)
    return b"PK\x03\x04" + directory + end


# -- legacy files ---------------------------------------------------------------------------


@pth("has 7 values, not those of the index", described=True)
def a_legacy_storage_of_another_size() -> bytes:
    return legacy(items((text(KEY), tensor(of=storage(more=b"N")))), count=7)


@pth("no list of storages")
def a_legacy_file_without_a_list_of_storages() -> bytes:
    return legacy(items((text(KEY), tensor(of=storage(more=b"N")))), keys={"0": 1})


@pth("not where the file says", described=True)
def a_legacy_list_of_other_things() -> bytes:
    return legacy(items((text(KEY), tensor(of=storage(more=b"N")))), keys=([[]], "0"))


@pth("truncated")
def a_legacy_storage_of_2_to_the_62_values() -> bytes:
    return legacy(items((text(KEY), tensor(of=storage(numel=1 << 62, more=b"N")))), count=1 << 62)


# -- safetensors ----------------------------------------------------------------------------


def safetensors(header: object, length: int | None = None, values: bytes = ROWS.tobytes()) -> bytes:
    held = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(held) if length is None else length) + held + values


def entry(shape: object = (K, D), begin: object = 0, end: object = 4 * K * D) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


def st(says: str = "", **options: bool) -> Callable[[Callable[[], bytes]], object]:
    """Note a safetensors file."""

    def note(make: Callable[[], bytes]) -> object:
        def build(folder: Path) -> Path:
            (folder / "a.safetensors").write_bytes(make())
            return folder / "a.safetensors"

        build.__name__ = make.__name__
        return kind(says, **options)(build)

    return note


@st("declares a header of 9,223,372")
def a_header_of_2_to_the_63_bytes() -> bytes:
    return safetensors({KEY: entry()}, length=1 << 63)


@st("declares a header of 20.0 MB")
def a_header_of_20_megabytes() -> bytes:
    return safetensors(b"{" + b" " * 19_999_998 + b"}")


@st("more than 1,000,000 lists and objects")
def a_header_of_five_million_lists() -> bytes:
    return safetensors(b'{"a":[' + b"[]," * 5_000_000 + b"[]]}")


@st("more than 1,000,000 lists and objects")
def a_header_of_five_million_objects() -> bytes:
    return safetensors(b'{"a":[' + b"{}," * 5_000_000 + b"{}]}")


@st("header cannot be read")
def deep_json() -> bytes:
    return safetensors(b'{"a":' * 100_000 + b"}" * 100_000)


@st()
def metadata_of_deep_json() -> bytes:
    deep = b'{"__metadata__":{"a":' + b"[" * 900 + b"]" * 900 + b"},"
    return safetensors(deep + json.dumps({KEY: entry()}).encode()[1:])


@st("stands there twice")
def a_key_twice() -> bytes:
    one = json.dumps({KEY: entry()})[1:-1]
    return safetensors(f"{{{one},{one}}}".encode())


@st("overlaps another tensor")
def tensors_that_overlap() -> bytes:
    return safetensors({KEY: entry(), "b": entry((4,), 8, 24)})


@st("natural numbers")
def offsets_beyond_every_number() -> bytes:
    return safetensors(json.dumps({KEY: entry(end=7)}).replace("7]", "10e400]").encode())


@st("natural numbers|header cannot be read")
def a_shape_of_a_million_digits() -> bytes:
    return safetensors(json.dumps({KEY: entry((7, 1))}).replace("7,", "9" * 10**6 + ",").encode())


@st("0 weight-norm scales", described=True)
def scales_of_none_by_2_to_the_62() -> bytes:
    return safetensors({f"{KEY}_v": entry((4, 4), 0, 64), f"{KEY}_g": entry((0, 1 << 62), 64, 64)})


@st("over 64 dimensions")
def sixty_thousand_dimensions() -> bytes:
    return safetensors({KEY: entry((1,) * 60_000, 0, 4)})


@st("but 192 bytes")
def a_shape_of_2_to_the_126_values() -> bytes:
    return safetensors({KEY: entry((1 << 62, 1 << 62))})


@st()
def an_empty_key_of_safetensors() -> bytes:
    return safetensors({"": entry()})


@st()
def ten_thousand_layers() -> bytes:
    empty = {f"m{i}.head.mlp.{j}.weight": entry((0, 4), 0, 0)
             for i in range(5_000) for j in (0, 2)}  # fmt: skip
    return safetensors({KEY: entry(), **empty})


@st("prototypes are all zero", described=True)
def eight_thousand_heads() -> bytes:
    layers = ("mlp.0", "mlp.2", "last_layer")
    held = {f"m{i}.head.{layer}.weight": entry((2, 1), (4 * i + j) * 8, (4 * i + j) * 8 + 8)
            for i in range(8_000) for j, layer in enumerate(layers)}  # fmt: skip
    return safetensors(held, values=bytes(8 * 4 * 8_000))


@st("over 200,000 tensors")
def a_quarter_of_a_million_tensors() -> bytes:
    one = b'"%d":{"dtype":"F32","shape":[],"data_offsets":[0,0]}'
    return safetensors(b"{" + b",".join(one % i for i in range(250_000)) + b"}")


# -- numpy files ----------------------------------------------------------------------------


def npy(header: bytes, version: bytes = b"\1\0", length: int | None = None) -> bytes:
    form = "<H" if version == b"\1\0" else "<I"
    size = len(header) if length is None else length
    return b"\x93NUMPY" + version + struct.pack(form, size) + header + ROWS.tobytes()


def of_shape(shape: str, descr: str = "'<f4'") -> bytes:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()


def array(
    says: str = "", suffix: str = ".npy", **options: bool
) -> Callable[[Callable[[], bytes]], object]:
    """Note a numpy file."""

    def note(make: Callable[[], bytes]) -> object:
        def build(folder: Path) -> Path:
            (folder / f"a{suffix}").write_bytes(make())
            return folder / f"a{suffix}"

        build.__name__ = make.__name__
        return kind(says, **options)(build)

    return note


@array("header cannot be read")
def a_numpy_header_of_two_gigabytes() -> bytes:
    return npy(of_shape("(12, 4)"), b"\2\0", length=1 << 31)


@array("header cannot be read")
def a_numpy_header_of_deep_brackets() -> bytes:
    return npy(of_shape("(" * 4000 + ")" * 4000), b"\2\0")


@array("header cannot be read")
def a_numpy_header_of_many_signs() -> bytes:
    return npy(of_shape("-" * 9000 + "1"), b"\2\0")


@array("declares|impossible|header cannot be read")
def a_numpy_shape_of_2_to_the_120() -> bytes:
    return npy(of_shape(f"({1 << 60}, {1 << 60})"))


@array("declares|header cannot be read")
def a_numpy_type_of_gigabytes() -> bytes:
    return npy(of_shape("(1,)", "('<f4', (100000, 10000))"))


@array("unpacks to 1,600.0 MB", suffix=".npz")
def a_packed_array_of_1_6_gigabytes() -> bytes:
    return with_packed(zipped({"a.npy": packed(1 << 28)}), "a.npy", 1_600_000_000)


@array("header cannot be read", suffix=".npz")
def a_packed_header_of_gigabytes() -> bytes:
    header = b"\x93NUMPY\2\0" + struct.pack("<I", 1 << 31)
    member = zlib.compressobj(9, wbits=-15)
    data = member.compress(header + bytes(1 << 24)) + member.flush()
    return with_packed(zipped({"a.npy": data}), "a.npy", len(header) + (1 << 24))


@array(suffix=".npz")
def twenty_thousand_arrays() -> bytes:
    small = {f"{i}.npy": npy(of_shape("(0,)")) for i in range(19_999)}
    return zipped(small | {"prototypes.npy": npy(of_shape("(12, 4)"))})


@array("over 20,000 arrays", suffix=".npz")
def fifty_thousand_arrays() -> bytes:
    return zipped(dict.fromkeys((f"{i}.npy" for i in range(50_000)), b""))


# -- several files --------------------------------------------------------------------------


def index(where: object, folder: Path) -> Path:
    (folder / "model.safetensors").write_bytes(safetensors({KEY: entry()}))
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": where}))
    return path


@kind("names a file of another folder, '../")
def an_index_that_leads_out(folder: Path) -> Path:
    return index({KEY: "../../x.safetensors"}, folder)


@kind("names a file of another folder, '/etc/passwd'")
def an_index_that_leads_to_the_root(folder: Path) -> Path:
    return index({KEY: "/etc/passwd"}, folder)


@kind("names a file that cannot be")
def an_index_of_half_a_character(folder: Path) -> Path:
    return index({KEY: "\ud800"}, folder)


@kind("in several files")
def an_index_that_names_itself(folder: Path) -> Path:
    return index({KEY: "model.safetensors.index.json"}, folder)


@kind("is missing")
def an_index_of_a_file_that_is_not_there(folder: Path) -> Path:
    return index({KEY: "b.safetensors"}, folder)


@kind("names no files|weight_map")
def an_index_of_no_text(folder: Path) -> Path:
    return index([1, 2], folder)


@kind("does not hold")
def an_index_of_a_tensor_that_is_not_there(folder: Path) -> Path:
    return index({"b": "model.safetensors"}, folder)


def shards(folder: Path, *parts: bytes) -> Path:
    for number, data in enumerate(parts, 1):
        (folder / f"model-0000{number}-of-0000{len(parts)}.safetensors").write_bytes(data)
    return folder


@kind("two files hold different values", described=True)
def shards_of_which_two_hold_one_head(folder: Path) -> Path:
    one = safetensors({KEY: entry()})
    return shards(folder, one, one[:-4] + bytes(4))


@kind()
def shards_of_which_two_hold_the_same(folder: Path) -> Path:
    return shards(folder, *[safetensors({KEY: entry()})] * 2)


@kind("has two types")
def shards_of_two_types(folder: Path) -> Path:
    place = {"saved_offsets": [K // 2, 0]}
    second = {KEY: entry((K // 2, 2 * D), 0, 96) | {"dtype": "F16"}}
    about = {"__metadata__": {"DCP_SHARDING_INFO": json.dumps({KEY: place})}}
    return shards(folder, safetensors({KEY: entry()}), safetensors(second | about))


def run(
    says: str, *, described: bool = True, **options: object
) -> Callable[[Callable[[], list[tuple[tuple[int, int], tuple[int, int]]]]], object]:
    """Note a folder of torch.distributed.checkpoint: where its pieces begin and their shapes."""

    def note(make: Callable[[], list[tuple[tuple[int, int], tuple[int, int]]]]) -> object:
        def build(folder: Path) -> Path:
            import torch

            from tests.fuzz_files import pieces_of_a_run

            pieces = [(start, torch.ones(shape)) for start, shape in make()]
            for file, data in pieces_of_a_run(pieces, (K, D), **options).items():
                if "/" not in file:
                    (folder / file).write_bytes(data)
            return folder

        build.__name__ = make.__name__
        return kind(says, described=described)(build)

    return note


Pieces = list[tuple[tuple[int, int], tuple[int, int]]]


@run("names a file of another folder, '../../x'", described=False, files=("../../x",))
def a_run_that_leads_out() -> Pieces:
    return [((0, 0), (K, D))]


@run("names a file of another folder, '/etc/passwd'", described=False, files=("/etc/passwd",))
def a_run_that_leads_to_the_root() -> Pieces:
    return [((0, 0), (K, D))]


@run("pieces overlap")
def a_run_of_pieces_that_overlap() -> Pieces:
    return [((0, 0), (6, D)), ((3, 0), (6, D))]


@run("do not make up", described=False)
def a_run_with_a_gap() -> Pieces:
    return [((0, 0), (5, D)), ((6, 0), (6, D))]


@run("reaches beyond the whole", described=False)
def a_run_with_a_piece_too_many() -> Pieces:
    return [((0, 0), (6, D)), ((8, 0), (6, D))]


def metadata(*states: tuple[str, bytes]) -> Callable[[Path], None]:
    """A ``.metadata`` of its own."""
    held = b"}(" + b"".join(text(key) + value for key, value in states) + b"u"
    program = b"\x80\x02" + name("torch.distributed.checkpoint.metadata", "Metadata")

    def write(folder: Path) -> None:
        (folder / ".metadata").write_bytes(program + b")\x81" + held + b"b.")

    return write


@kind("names os.system")
def a_run_that_calls_the_system(folder: Path) -> Path:
    call = name("os", "system") + text("true") + b"\x85R"
    metadata(("state_dict_metadata", b"}"), ("storage_data", call))(folder)
    return folder


@kind("cannot be understood")
def a_run_whose_names_unfold_without_end(folder: Path) -> Path:
    lists = b"]q\0" + b"0](h\0h\0eq\0" * 100
    index = name("some", "MetadataIndex") + b")\x81}" + text("fqn") + lists + b"sb"
    info = name("some", "_StorageInfo") + b")\x81}(" + text("relative_path") + text("a")
    info += text("offset") + number(0) + text("length") + number(1) + b"ub"
    stored = b"}" + index + info + b"s"
    metadata(("state_dict_metadata", b"}"), ("storage_data", stored))(folder)
    return folder


@kind("more pieces than places")
def a_run_of_more_pieces_than_places(folder: Path) -> Path:
    chunk = name("some", "ChunkStorageMetadata") + b")\x81}(" + text("offsets") + numbers((0, 0))
    chunk += text("sizes") + numbers((K, D)) + b"ubq\0"
    shared = b"](" + chunk + b"h\0" * 100_000 + b"eq\1"
    held = name("x", "TensorStorageMetadata") + b")\x81}" + text("chunks") + b"h\1sb"
    tensors = b"".join(text(f"{i}") + held for i in range(10_000))
    metadata(
        ("a", shared), ("state_dict_metadata", b"}(" + tensors + b"u"), ("storage_data", b"}")
    )(folder)
    return folder


#: Names of heads that would like to be something else where they are printed.
NAMES = {
    "a formula": "=cmd|'/c calc'!A1.last_layer.weight",
    "a sum": "+1-1.last_layer.weight",
    "an order to a runner": "::set-output name=verdict::passed.last_layer.weight",
    "an older order to a runner": "a ##[add-mask]b.last_layer.weight",
    "colours": "\x1b[31mred\x1b]0;title\x07.last_layer.weight",
    "a new line": "a\n::error::b\r.last_layer.weight",
    "text that runs backwards": "\u202egnp.last_layer.weight",
    "half a character": "\ud800.last_layer.weight",
    "markup": "<script>alert(1)</script>|*_`.last_layer.weight",
}
for _what, _key in NAMES.items():

    def _named(folder: Path, key: str = _key) -> Path:
        (folder / "a.pth").write_bytes(torch_zip(items((text(key), tensor()))))
        return folder / "a.pth"

    _named.__name__ = f"a name that is {_what}"
    kind()(_named)
