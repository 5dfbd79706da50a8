"""Read the index of a torch file as data, with a machine that cannot run anything.

The index (``data.pkl``) of a zip checkpoint is a pickle program. This module interprets the part
of the language that builds data (https://docs.python.org/3/library/pickletools.html). Names such
as ``torch._utils._rebuild_tensor_v2`` are compared with an allow-list and then stand for
themselves: nothing is imported or called, and torch is not needed. What comes out are
dictionaries, lists, plain values and :class:`TensorRef`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from itertools import islice
from typing import Any

from collapse_audit.checkpoints.pickle_values import (
    ALLOWED,
    STORAGE_TYPES,
    Name,
    Opaque,
    Options,
    StorageRef,
    TensorRef,
    natural,
    tensor_of,
)
from collapse_audit.errors import CheckpointError, CollapseAuditError, UnsafePickleError

# A tensor takes about 40 operations, so this is an index of some 40,000 tensors. Together with
# the limit on the size of the index it bounds time (seconds) and memory (some 100 MB).
MAX_OPERATIONS = 1_500_000

_OPAQUE = Opaque()
_MARK = object()


def read_pickle_index(data: bytes, shown: str) -> Any:
    """Interpret the pickle program of a zip checkpoint as data.

    Args:
        data: The program.
        shown: What to call the file in messages.

    Returns:
        The object it describes: dictionaries, lists, tuples, plain values, :class:`TensorRef`,
        :class:`Options`, and placeholders for what has no tensors.

    Raises:
        UnsafePickleError: If it names or does something that checkpoints never need.
        CheckpointError: If it is damaged or absurdly long.
    """  # noqa: DOC501  (passed on)
    machine = _Machine(shown)
    try:
        for opcode, argument, _ in islice(pickletools.genops(data), MAX_OPERATIONS):
            machine.step(opcode.name, argument)
    except CollapseAuditError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, UnicodeError) as error:
        raise CheckpointError(
            f"{shown}: its index is damaged ({type(error).__name__}).",
            hint="Compare the size of the file with the source.",
        ) from None
    if not machine.stopped:
        raise CheckpointError(
            f"{shown}: its index has more than {MAX_OPERATIONS:,} operations.",
            hint="No checkpoint needs as many; it was not read any further.",
        )
    return machine.result


class _Machine:
    """A stack, a memo, and one method for each kind of operation."""

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.result: Any = None
        self.stopped = False

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self._stack.append(argument)
        elif name in _VALUES:
            self._stack.append(_VALUES[name]())
        elif handler := _HANDLERS.get(name):
            handler(self, argument)
        elif name not in {"PROTO", "FRAME"}:
            raise self._unsafe(f"uses the operation {name}")

    def _unsafe(self, what: str) -> UnsafePickleError:
        return UnsafePickleError(
            f"{self._shown}: its pickle {what}, which is outside the allow-list; "
            "nothing was executed.",
            hint="If you trust where it comes from, save its state dict alone and audit that.",
        )

    # -- the stack and the memo ------------------------------------------------------------

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value should be")
        return value

    def _pop_to_mark(self) -> list[Any]:
        for position in range(len(self._stack) - 1, -1, -1):
            if self._stack[position] is _MARK:
                items = self._stack[position + 1 :]
                del self._stack[position:]
                return items
        raise ValueError("no mark")

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            raise TypeError("an item for something that holds none")
        return self._stack[-1]

    def _stop(self, _: Any) -> None:
        self.result, self.stopped = self._pop(), True

    def _put(self, index: int) -> None:
        self._memo[int(index)] = self._stack[-1]

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[int(index)])

    # -- containers ------------------------------------------------------------------------

    def _append(self, _: Any) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _appends(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._top(list).extend(items)

    def _set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._fill(self._top(dict), [key, value])

    def _set_items(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._fill(self._top(dict), items)

    def _dict(self, _: Any) -> None:
        self._stack.append(self._fill({}, self._pop_to_mark()))

    @staticmethod
    def _fill(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing nested tuples can take for ever; no path to a tensor has such a key.
            plain = key is None or isinstance(key, str | int | float | bytes)
            target[key if plain else Opaque()] = value
        return target

    def _list(self, _: Any) -> None:
        self._stack.append(self._pop_to_mark())

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _tuple_of(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    # -- names, calls and states -----------------------------------------------------------

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        if not ALLOWED.fullmatch(argument):
            raise self._unsafe(f"names {f'{module}.{name}'[:120]!r}")
        self._stack.append(Name(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._global(f"{module} {name}")

    def _persistent(self, _: Any) -> None:
        kind, storage_type, key, _location, numel = self._pop()[:5]
        if kind != "storage" or not isinstance(storage_type, Name) or not isinstance(key, str):
            raise ValueError("not a storage")
        dtype = STORAGE_TYPES.get(storage_type.name, storage_type.name)
        self._stack.append(StorageRef(key, dtype, natural(numel)))

    def _reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        self._stack.append(self._call(function, arguments))

    def _new_with_keywords(self, _: Any) -> None:
        self._pop()
        self._reduce(_)

    def _call(self, function: Any, arguments: Any) -> Any:
        """What a call would give, for the calls that lead to tensors."""
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise self._unsafe("calls something that is no name")
        match function.name:
            case "_rebuild_tensor_v2" | "_rebuild_tensor" | "_rebuild_tensor_v3":
                typed = function.name.endswith("v3")
                return tensor_of(arguments, arguments[6] if typed else None)
            case "_rebuild_parameter" | "_rebuild_parameter_with_state" | "Parameter":
                return arguments[0] if arguments else _OPAQUE
            case "_rebuild_from_type_v2":
                return self._call(arguments[0], arguments[2])
            case "OrderedDict":
                pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
                return self._fill({}, [part for pair in pairs for part in pair[:2]])
            case "Namespace":
                return Options()
        return _OPAQUE

    def _build(self, _: Any) -> None:
        state = self._pop()
        target = self._stack[-1]
        if isinstance(target, Options):
            target.values = state if isinstance(state, dict) else {}
        elif not isinstance(target, dict | TensorRef | Opaque):
            raise self._unsafe("sets the state of something that has none")

    def _drop(self, _: Any) -> None:
        self._pop()

    def _pop_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)


_CONSTANTS = frozenset({
    "INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
})  # fmt: skip
_VALUES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,  # order and repetition do not matter, and lists need no hash
}
_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine._mark,
    "POP": _Machine._drop,
    "POP_MARK": _Machine._pop_mark,
    "STOP": _Machine._stop,
    "PUT": _Machine._put,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._memoize,
    "GET": _Machine._get,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "ADDITEMS": _Machine._appends,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "DICT": _Machine._dict,
    "LIST": _Machine._list,
    "FROZENSET": _Machine._list,
    "TUPLE": _Machine._tuple,
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "BINPERSID": _Machine._persistent,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "NEWOBJ_EX": _Machine._new_with_keywords,
    "BUILD": _Machine._build,
}
