"""Pickle programs from a grammar: state dicts as torch writes them, and what nobody writes.

A program is a list of operations. Most describe dictionaries of tensors over real storages in one
of the many ways that the language has for it; then a few operations are removed, repeated, swapped
or replaced. Each is made from its number and a seed alone.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field

WIDTHS = {
    "Float": 4, "Double": 8, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Bool": 1, "Untyped": 1,
}  # fmt: skip
MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "float32": 4, "float64": 8, "bfloat16": 2, "int64": 8, "uint16": 2, "uint8": 1, "bool": 1,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e8m0fnu": 1,
}  # fmt: skip
_TYPES = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Bool": "bool",
}  # fmt: skip
_KEYS = (
    "last_layer.weight", "head.last_layer.weight_v", "head.last_layer.weight_g", "teacher",
    "student", "state_dict", "module.prototypes.weight", "a", "b", "a/b", "0", "", "é", "x" * 300,
    "\ud800", "\x1b[31m", "1",
)  # fmt: skip
_NAMES = (
    "collections OrderedDict", "collections Counter", "collections defaultdict", "builtins dict",
    "builtins list", "builtins set", "builtins bytearray", "torch Size", "torch device",
    "torch float32", "torch FloatStorage", "torch.nn.parameter Parameter", "torch Tensor",
    "argparse Namespace", "somewhere Config", "numpy dtype", "numpy._core.multiarray scalar",
    "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_sparse_tensor", "os system",
    "torch._tensor _rebuild_from_type_v2", "_codecs encode", "copyreg _reconstructor",
)  # fmt: skip
_NUMBERS = (
    0, 1, 2, 3, 4, 7, 12, 48, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1,
    2**63, 2**64, -1, -2, -(2**31), -(2**63), 10**400, 1 << 40_000,
)  # fmt: skip
_BY_CODE = {operation.code.encode("latin-1"): operation for operation in pickletools.opcodes}
_OPERATIONS = list(_BY_CODE.values())
Push = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Storage:
    """One block of values."""

    key: str
    kind: str
    numel: int
    data: bytes


@dataclass(slots=True)
class Program:
    """Operations in the making."""

    draw: random.Random
    plain: bool  # only the operations that torch's weights_only unpickler knows
    storages: list[Storage]
    wild: bool = True
    tokens: list[bytes] = field(default_factory=list)
    kept: dict[str, list[int]] = field(default_factory=dict)
    memo: int = 0

    def put(self, *tokens: bytes) -> None:
        self.tokens += tokens

    def chance(self, probability: float) -> bool:
        return self.draw.random() < probability

    def odd(self, probability: float) -> bool:
        """Whether to write what torch would not write."""
        return self.wild and self.chance(probability)

    # -- plain values ----------------------------------------------------------------------

    def text(self, value: str) -> None:
        data = value.encode("utf-8", "surrogatepass")
        ways = [b"X" + struct.pack("<I", len(data)) + data]
        if value.isascii() and len(data) < 256:
            ways.append(b"U" + bytes([len(data)]) + data)
        if not self.plain:
            ways.append(b"\x8d" + struct.pack("<Q", len(data)) + data)
            if value.isascii() and value.isprintable():
                ways += [b"V" + data + b"\n", b"S'" + data.replace(b"'", b"") + b"'\n"]
                ways.append(b"T" + struct.pack("<i", len(data)) + data)
            if len(data) < 256:
                ways.append(b"\x8c" + bytes([len(data)]) + data)
        self.put(self.draw.choice(ways))

    def number(self, value: int) -> None:
        size = (value.bit_length() + 8) // 8
        data = value.to_bytes(size, "little", signed=True)
        ways = []
        if 0 <= value < 256:
            ways.append(b"K" + bytes([value]))
        if 0 <= value < 65536:
            ways.append(b"M" + struct.pack("<H", value))
        if -(2**31) <= value < 2**31:
            ways.append(b"J" + struct.pack("<i", value))
        if size < 256:
            ways.append(b"\x8a" + bytes([size]) + data)
        if not self.plain or not ways:
            ways.append(b"\x8b" + struct.pack("<i", size) + data)
        if not self.plain and size < 1000:
            ways += [b"I%d\n" % value, b"L%dL\n" % value]
        self.put(self.draw.choice(ways))

    def name(self, value: str) -> None:
        module, name = value.split(" ")
        if self.plain or self.chance(0.7):
            self.put(b"c" + module.encode() + b"\n" + name.encode() + b"\n")
        else:
            self.text(module)
            self.text(name)
            self.put(b"\x93")

    def scalar(self) -> None:
        kind = self.draw.randrange(9)
        if kind < 3:
            self.number(self.draw.choice(_NUMBERS) if self.chance(0.3) else self.draw.randrange(99))
        elif kind == 3:
            self.put(b"G" + struct.pack(">d", self.draw.choice((0.1, -0.0, float("inf"), 1e300))))
        elif kind == 4:
            self.put(self.draw.choice((b"N", b"\x88", b"\x89")))
        elif kind == 5:
            self.text(self.draw.choice(_KEYS))
        elif kind == 6:
            self.name(self.draw.choice(("torch float32", "torch Size", "torch bfloat16")))
        elif kind == 7:
            self.put(*([b"]"] if self.plain else [b")", b"]", b"0"]))
        else:
            self.call("torch Size", [lambda: self.numbers((2, 3))])

    # -- containers ------------------------------------------------------------------------

    def sequence(self, items: list[Push], *, long: bool = False) -> None:
        """A tuple."""
        if len(items) <= 3 and not long and self.chance(0.7):
            for item in items:
                item()
            self.put((b")", b"\x85", b"\x86", b"\x87")[len(items)])
        else:
            self.put(b"(")
            for item in items:
                item()
            self.put(b"t")

    def numbers(self, values: tuple[int, ...]) -> None:
        self.sequence([lambda n=n: self.number(n) for n in values])

    def list_of(self, items: list[Push]) -> None:
        way = self.draw.randrange(3 if self.plain else 4)
        self.put(b"(" if way == 3 else b"]")
        if way != 3:
            self.keep("list")
        if way == 1:
            self.put(b"(")
        for item in items:
            item()
            if way in (0, 2):
                self.put(b"a")
        self.put(*{1: [b"e"], 3: [b"l"]}.get(way, []))

    def call(self, name: str, arguments: list[Push], operation: bytes = b"R") -> None:
        self.name(name)
        self.sequence(arguments)
        self.put(operation)

    def dictionary(self, items: list[tuple[Push, Push]]) -> None:
        way = self.draw.randrange(8)
        pairs: list[Push] = [lambda p=pair: self.sequence(list(p)) for pair in items]
        if way == 0:
            kind = self.draw.choice(("collections OrderedDict", "collections Counter"))
            outer = self.list_of if self.chance(0.7) else self.sequence
            self.call(kind, [lambda: outer(pairs)])
            return
        if way == 1 and not self.plain:
            self.put(b"(")
            for key, value in items:
                key()
                value()
            self.put(b"d")
            return
        if way == 2:
            self.call("collections OrderedDict", [], self.draw.choice((b"R", b"\x81")))
        else:
            self.put(b"}")
        self.keep("dict")
        if many := self.chance(0.5):
            self.put(b"(")
        for key, value in items:
            key()
            value()
            self.put(*([] if many else [b"s"]))
        if many:
            self.put(b"u")
        if way == 2 and self.chance(0.5):
            self.dictionary([(lambda: self.text("_metadata"), lambda: self.put(b"}"))])
            self.put(b"b")

    # -- the memo --------------------------------------------------------------------------

    def keep(self, kind: str) -> None:
        """Put the topmost value into the memo, sometimes."""
        if not self.chance(0.4):
            return
        index = self.memo
        if not self.plain and self.chance(0.3):
            self.put(b"\x94")
        elif not self.plain and self.chance(0.3):
            self.put(b"p%d\n" % index)
        elif index < 256 and self.chance(0.8):
            self.put(b"q" + bytes([index]))
        else:
            self.put(b"r" + struct.pack("<I", index))
        self.kept.setdefault(kind, []).append(index)
        self.memo += 1

    def get(self, kind: str) -> bool:
        """Push a kept value of a kind, if there is one."""
        if not (known := self.kept.get(kind)):
            return False
        index = self.draw.choice(known)
        if not self.plain and self.chance(0.3):
            self.put(b"g%d\n" % index)
        elif index < 256 and self.chance(0.8):
            self.put(b"h" + bytes([index]))
        else:
            self.put(b"j" + struct.pack("<I", index))
        return True

    # -- tensors ---------------------------------------------------------------------------

    def storage(self, chosen: Storage, kind: str, numel: int) -> None:
        if self.chance(0.1) and self.get("storage"):
            return
        key = chosen.key
        if self.odd(0.03):
            numel = self.draw.choice((*_NUMBERS, numel + 1, numel - 1))
        if self.odd(0.02):
            kind = self.draw.choice((*WIDTHS, "Nothing"))
        if self.odd(0.01):
            key = self.draw.choice(("99", "../0", "", "0/0", "A"))
        place = "torch.storage" if kind == "Untyped" else "torch"
        parts: list[Push] = [
            lambda: self.text("storage"),
            lambda: self.name(f"{place} {kind}Storage"),
            lambda: self.text(key) if not self.odd(0.01) else self.number(0),
            lambda: self.text(self.draw.choice(("cpu", "cuda:0", "mps"))),
            lambda: self.number(numel),
        ]
        if chosen.key.startswith("L"):  # of the legacy container, with or without a view
            if self.chance(0.2) and numel > 4:
                view = (lambda: self.text(f"v{self.memo}"), lambda: self.number(1))
                rest = numel - 1
                parts.append(lambda: self.sequence([*view, lambda: self.number(rest)]))
            else:
                parts.append(lambda: self.put(b"N"))
        if self.odd(0.01):
            parts.pop(self.draw.randrange(len(parts)))
        self.sequence(parts, long=True)
        self.put(b"Q")
        self.keep("storage")

    def view(self, numel: int) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        """Offset, shape and strides, mostly inside a storage."""
        draw = self.draw
        rank = draw.choice((0, 1, 2, 2, 2, 2, 3))
        shape = tuple(draw.choice((1, 2, 3, 4)) for _ in range(rank))
        steps, step = [], 1
        for size in reversed(shape):
            steps.append(step)
            step *= size
        strides = tuple(reversed(steps))
        if self.chance(0.2):
            shape, strides = shape[::-1], strides[::-1]
        if self.chance(0.1):
            strides = tuple(draw.choice((0, 1, 2, 5)) for _ in shape)
        span = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if span > numel and not self.odd(0.05):
            shape, strides, span = (numel,), (1,), numel
        offset = draw.randrange(max(numel - span, 0) + 1)
        if self.odd(0.05):
            place, wild = draw.randrange(3), draw.choice(_NUMBERS)
            offset = wild if place == 0 else offset
            if shape:
                changed = draw.randrange(len(shape))
                held = list(shape if place == 1 else strides)
                held[changed] = wild
                shape = tuple(held) if place == 1 else shape
                strides = tuple(held) if place == 2 else strides
        if self.odd(0.01):
            shape, strides = shape * 40, strides * 40
        return offset, shape, strides

    def tensor(self) -> None:
        if self.chance(0.15) and self.get("tensor"):
            return
        draw, chosen = self.draw, self.draw.choice(self.storages)
        if not self.plain and self.chance(0.05):
            self.array()
            self.keep("tensor")
            return
        way = "_v3" if chosen.kind == "Untyped" else draw.choice(("_v2", "_v2", "_v2", ""))
        dtype, room = draw.choice(list(_DTYPES)), chosen.numel
        if way == "_v3":
            room //= _DTYPES[dtype]
        offset, shape, strides = self.view(room)
        parts: list[Push] = [
            lambda: self.storage(chosen, chosen.kind, chosen.numel),
            lambda: self.number(offset),
            lambda: self.numbers(shape),
            lambda: self.numbers(strides),
        ]
        if way:
            parts += [lambda: self.put(b"\x89"), lambda: self.call("collections OrderedDict", [])]
        if way == "_v3":
            parts.append(lambda: self.name(f"torch {dtype}"))
        if way and self.odd(0.03):
            flag = draw.choice(("neg", "conj", "other"))
            parts.append(
                lambda: self.dictionary([(lambda: self.text(flag), lambda: self.put(b"\x88"))])
            )
        wrapped = draw.random()
        name = f"torch._utils _rebuild_tensor{way}"
        if wrapped < 0.04:  # the call itself as an argument
            self.wrapped(name, parts)
        elif wrapped < 0.12:
            inner: Push = lambda: self.call(name, parts)  # noqa: E731
            of_storage = _TYPES.get(chosen.kind, "uint8")
            self.outer(inner, dtype if way == "_v3" else of_storage)
        else:
            self.call(name, parts)
        if self.odd(0.02):
            self.state()
        self.keep("tensor")

    def array(self) -> None:
        """A tensor of a device: its values as numpy writes them into a pickle."""
        draw = self.draw
        code, dtype = draw.choice((("f4", "float32"), ("f8", "float64"), ("b1", "bool"),
                                   ("i2", "int16"), ("f4", "bfloat16"),
                                   ("f2", "float32")))  # fmt: skip
        shape = draw.choice(((), (3,), (2, 3), (0, 4), (1, 4)))
        size = int(code[1]) * math.prod(shape)
        raw = bytes(size) if code == "b1" else draw.randbytes(size)
        if dtype == "bfloat16" and self.chance(0.8):
            raw = b"".join(b"\0\0" + raw[i : i + 2] for i in range(0, size, 4))
        if self.odd(0.1):
            raw, shape = draw.choice(((raw[1:], shape), (raw, (draw.choice(_NUMBERS),))))
        order = draw.choice((b"\x88", b"\x89"))

        def kind() -> None:
            self.call("numpy dtype", [lambda: self.text(code), *[lambda: self.put(b"\x89")] * 2])
            mark = ">" if self.odd(0.05) else "<"
            parts: list[Push] = [lambda: self.number(3), lambda: self.text(mark)]
            parts += [lambda: self.put(b"N")] * 3
            self.sequence([*parts, *[lambda: self.number(-1)] * 2, lambda: self.number(0)])
            self.put(b"b")

        def values() -> None:
            self.call("numpy._core.multiarray _reconstruct",
                      [lambda: self.name("numpy ndarray"), lambda: self.numbers((0,)),
                       lambda: self.put(b"C\1b")])  # fmt: skip
            self.sequence([lambda: self.number(1), lambda: self.numbers(shape), kind,
                           lambda: self.put(order),
                           lambda: self.put(b"B" + struct.pack("<I", len(raw)) + raw)])  # fmt: skip
            self.put(b"b")

        self.call("torch._utils _rebuild_device_tensor_from_numpy",
                  [values, lambda: self.name(f"torch {dtype}"), lambda: self.text("cpu"),
                   lambda: self.put(b"\x89")])  # fmt: skip

    def wrapped(self, name: str, parts: list[Push]) -> None:
        kind = self.draw.choice(("torch Tensor", "torch.nn.parameter Parameter"))
        arguments: list[Push] = [
            lambda: self.name(name),
            lambda: self.name(kind),
            lambda: self.sequence(parts),
            self.attributes,
        ]
        self.call("torch._tensor _rebuild_from_type_v2", arguments)

    def outer(self, inner: Push, dtype: str) -> None:
        """A tensor inside a parameter, or moved to its device."""
        hooks: Push = lambda: self.call("collections OrderedDict", [])  # noqa: E731
        no: Push = lambda: self.put(b"\x89")  # noqa: E731
        self.call(*self.draw.choice([
            ("torch.nn.parameter Parameter", [inner, no]),
            ("torch._utils _rebuild_parameter", [inner, no, hooks]),
            ("torch._utils _rebuild_parameter_with_state", [inner, no, hooks, self.attributes]),
            ("torch._utils _rebuild_device_tensor_from_cpu_tensor",
             [inner, lambda: self.name(f"torch {dtype}"),
              lambda: self.text("cpu"), no]),
        ]))  # fmt: skip

    def attributes(self) -> None:
        """Attributes of a tensor: nearly always harmless."""
        name = self.draw.choice(("tag", "tag", "tag", "tag", "data", "real", "requires_grad"))
        value = self.tensor if name != "requires_grad" and self.chance(0.5) else self.scalar
        if self.chance(0.7):
            self.put(b"}")
        else:
            self.dictionary([(lambda: self.text(name), value)])

    def state(self) -> None:
        """Something that BUILD gives to the topmost value."""
        chosen = self.draw.choice(self.storages)
        self.draw.choice([
            lambda: self.put(b"}"),
            lambda: self.put(b")"),
            lambda: self.sequence([lambda: self.put(b"\x89"), lambda: self.put(b"\x89"),
                                   lambda: self.put(b"}")]),
            lambda: self.sequence([lambda: self.storage(chosen, chosen.kind, chosen.numel),
                                   lambda: self.number(0), lambda: self.numbers((2,)),
                                   lambda: self.numbers((1,))]),
            lambda: self.sequence([self.tensor]),
            lambda: self.dictionary([(lambda: self.text("data"), self.tensor)]),
        ])()  # fmt: skip
        self.put(b"b")

    # -- everything ------------------------------------------------------------------------

    def key(self) -> None:
        way = self.draw.random()
        if way < 0.8:
            self.text(self.draw.choice(_KEYS[:11] if self.plain else _KEYS))
        elif way < 0.9:
            self.number(self.draw.choice(_NUMBERS) if self.chance(0.2) else self.draw.randrange(9))
        elif way < 0.96 or self.plain:
            self.text(f"layer.{self.draw.randrange(100)}.weight")
        else:
            self.draw.choice([self.scalar, lambda: self.sequence([self.scalar] * 2), self.thing])()

    def thing(self) -> None:
        """An object of some type, with a state."""
        name, operation = self.draw.choice(_NAMES), self.draw.choice((b"R", b"\x81"))
        self.call(name, [self.scalar] * self.draw.choice((0, 0, 0, 1, 2)), operation)
        if self.chance(0.5):
            self.dictionary([(self.key, self.scalar)])
            self.put(b"b")

    def value(self, depth: int) -> None:
        way = self.draw.random()
        if way < 0.55 or depth > 5:
            self.tensor()
        elif way < 0.72:
            self.tree(depth + 1)
        elif way < 0.78:
            count = self.draw.randrange(4)
            inner: list[Push] = [lambda: self.value(depth + 1)] * count
            (self.list_of if self.chance(0.6) else self.sequence)(inner)
        elif way < 0.84:
            if not self.get(self.draw.choice(("dict", "list", "tensor"))):
                self.scalar()
        elif way < 0.88 and not self.plain:
            self.thing()
        elif way < 0.89:
            levels = self.draw.choice((3, 20, 29, 40, 2000))
            self.put(*[b"}", b"U\x01d"] * levels)
            self.tensor()
            self.put(*[b"s"] * levels)
        else:
            self.scalar()

    def tree(self, depth: int = 0) -> None:
        count = self.draw.choice((0, 1, 2, 3, 5)) if depth else self.draw.choice((1, 2, 3, 6))
        self.dictionary([(self.key, lambda: self.value(depth))] * count)


# -- a few changes --------------------------------------------------------------------------


def any_operation(draw: random.Random) -> bytes:
    """One operation of the language with an argument that it can have."""
    operation = draw.choice(_OPERATIONS)
    code = operation.code.encode("latin-1")
    if operation.arg is None:
        return code
    name, size = operation.arg.name, operation.arg.n
    if size > 0:
        edge = draw.choice((bytes(size), b"\xff" * size, b"\1" + bytes(size - 1)))
        return code + (edge if draw.random() < 0.5 else draw.randbytes(size))
    lines = {
        "decimalnl_short": b"%d\n" % draw.choice((0, 1, 5, 10**9)),
        "decimalnl_long": b"%dL\n" % draw.choice(_NUMBERS[:-1]),
        "floatnl": draw.choice((b"1.5\n", b"nan\n", b"1e400\n")),
        "stringnl": draw.choice((b"'a'\n", b'"\\x41\\n"\n', b"'\\q'\n", b"a\n")),
        "stringnl_noescape": b"0\n",
        "unicodestringnl": draw.choice((b"a\n", b"\\u12\n", b"\\U00110000\n", b"\xe9\n")),
        "stringnl_noescape_pair": draw.choice(_NAMES).replace(" ", "\n").encode() + b"\n",
    }
    if name in lines:
        return code + lines[name]
    width = int(name[-1]) if name[-1].isdigit() else 1
    width = {"long1": 1, "long4": 4, "string4": 4, "bytes1": 1, "string1": 1}.get(name, width)
    data = draw.randbytes(draw.choice((0, 1, 3, 8, 200)))
    claimed = len(data) if draw.random() < 0.8 else draw.choice((2**31 - 1, 2**40, 2**63))
    return code + min(claimed, 256**width - 1).to_bytes(width, "little") + data


def changed(tokens: list[bytes], draw: random.Random) -> list[bytes]:
    """One to three operations removed, repeated, swapped, moved or replaced."""
    tokens = list(tokens)
    for _ in range(draw.choice((1, 1, 2, 3))):
        at, other = draw.randrange(len(tokens) or 1), draw.randrange(len(tokens) or 1)
        kind = draw.randrange(9)
        if kind == 0:
            del tokens[at : at + draw.choice((1, 1, 3))]
        elif kind == 1:
            many = 200_000 if draw.random() < 0.02 else draw.choice((1, 2, 50, 3000))
            tokens[at:at] = tokens[at : at + 1] * many
        elif kind == 2 and tokens:
            tokens[at], tokens[other] = tokens[other], tokens[at]
        elif kind in (3, 4):
            tokens[at : at + (kind == 3)] = [any_operation(draw)]
        elif kind == 5:
            tokens[at:at] = tokens[other : other + draw.choice((2, 5, 20))]
        elif kind == 6:
            tokens[at:at] = [draw.choice(b"(0)]}ueastRb\x81\x85\x86Q21.").to_bytes()]
        elif kind == 7:  # a number at its limits
            numbers = [i for i, token in enumerate(tokens) if token[:1] in b"KMJ\x8a"]
            if numbers:
                number = Program(draw, plain=False, storages=[])
                number.number(draw.choice(_NUMBERS))
                tokens[draw.choice(numbers)] = number.tokens[0]
        else:  # another place in the memo
            places = [i for i, token in enumerate(tokens) if token[:1] in b"qhrj"]
            if places:
                place = draw.choice(places)
                code = tokens[place][:1]
                index = draw.choice((0, 1, 2, 255)).to_bytes(1 if code in b"qh" else 4, "little")
                tokens[place] = code + index
    return tokens


def program_tokens(draw: random.Random, storages: list[Storage]) -> list[bytes]:
    """One program."""
    kind = draw.random()
    if kind < 0.05:  # anything in any order
        tokens = [any_operation(draw) for _ in range(draw.choice((1, 5, 30, 200)))]
        return [b"\x80\x02", *tokens, b"."]
    program = Program(draw, plain=kind < 0.75, storages=storages, wild=draw.random() < 0.4)
    protocol = 2 if program.plain else draw.choice((0, 1, 2, 3, 4, 5, 9))
    program.put(b"\x80" + bytes([protocol]))
    program.tree() if draw.random() < 0.95 else program.tensor()
    program.put(b".")
    return changed(program.tokens, draw) if draw.random() < 0.4 else program.tokens


def program_file(draw: random.Random) -> bytes:
    """A file of torch around a program."""
    legacy = draw.random() < 0.3
    storages = []
    for number in range(draw.choice((1, 2, 3))):
        kind = draw.choice(list(WIDTHS)[: -1 if legacy else None])
        numel = draw.choice((1, 12, 48, 48, 48, 100) if draw.random() < 0.97 else (0,))
        numel *= 4 if kind == "Untyped" else 1
        size = numel * WIDTHS[kind]
        data = draw.randbytes(size) if kind != "Bool" else bytes(draw.choices((0, 1), k=size))
        storages.append(Storage(f"{'L' if legacy else ''}{number}", kind, numel, data))
    tokens = program_tokens(draw, storages)
    program = b"".join(tokens)
    if draw.random() < 0.05:
        at = draw.randrange(len(program))
        program = program[:at] + draw.randbytes(draw.choice((0, 1, 2, 8))) + program[at + 1 :]
    return (_legacy if legacy else _zip)(program, storages, draw)


def _zip(program: bytes, storages: list[Storage], draw: random.Random) -> bytes:
    odd = draw.random()
    buffer = io.BytesIO()
    packed = zipfile.ZIP_DEFLATED if odd < 0.02 else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", packed) as archive:

        def add(name: str, data: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data, packed)

        add("data.pkl", program)
        if odd < 0.9:
            order = {0.88: b"big", 0.87: b"middle"}
            known = [text for line, text in order.items() if odd > line]
            add("byteorder", known[0] if known else b"little")
        for storage in storages:
            data = storage.data
            if draw.random() < 0.02:
                data = data[: draw.randrange(len(data) + 1)]
            if draw.random() > 0.01:
                add(f"data/{storage.key}", data)
        add("version", b"3\n")
    return buffer.getvalue()


def _legacy(program: bytes, storages: list[Storage], draw: random.Random) -> bytes:
    system = {"protocol_version": 1001, "little_endian": draw.random() > 0.1, "type_sizes": {}}
    keys = [s.key for s in storages if f"{s.key}".encode() in program]
    if draw.random() < 0.1:
        keys = draw.choice((keys[::-1], keys * 2, keys[1:], [*keys, "none"], tuple(keys), 3, [1]))
    parts = [pickle.dumps(value, 2) for value in (MAGIC, 1001, system)]
    parts += [program, pickle.dumps(keys, 2)]
    by_key = {storage.key: storage for storage in storages}
    for key in keys if isinstance(keys, list) else []:
        storage = by_key.get(key, storages[0])
        count = storage.numel if draw.random() > 0.02 else draw.choice((0, 1, 2**31, 2**62))
        parts += [struct.pack("<Q", count), storage.data]
    whole = b"".join(parts)
    return whole if draw.random() > 0.02 else whole[: draw.randrange(len(whole))]
