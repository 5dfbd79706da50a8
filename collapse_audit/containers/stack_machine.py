"""The operations of a pickle that only move data: the stack, the memo, and plain containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from collapse_audit.containers.limits import INDEX_BYTES, OPERATIONS
from collapse_audit.containers.pickled import Opaque
from collapse_audit.errors import CheckpointError
from collapse_audit.words import megabytes

_MARK = object()
_KEY_BITS = 64


def too_long(name: str, size: int | None = None) -> CheckpointError:
    """The error for an index of too many bytes or, without ``size``, operations."""
    what = (
        f"declares {megabytes(size)}" if size is not None else f"has over {OPERATIONS:,} operations"
    )
    return CheckpointError(
        f"{name}: its index {what}; it was not read.",
        hint=f"A checkpoint's index has about 1 MB; at most {megabytes(INDEX_BYTES)} are read.",
    )


def _is_plain(key: Any) -> bool:
    """Whether a path to a tensor may have such a key; hashing nested tuples can take for ever."""
    if isinstance(key, int):
        return key.bit_length() < _KEY_BITS  # the decimals of a long one cost time
    return key is None or isinstance(key, str | float | bytes | Opaque)


class StackMachine:
    """A stack, a memo, and one method for each kind of operation."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._work = 0
        self.result: Any = None  # what the program left on the stack at its end

    def _count(self, work: int) -> None:
        self._work += work
        if self._work > OPERATIONS:
            raise too_long(self._name)

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
                self._count(len(items))
                return items
        raise ValueError("no mark")

    def _top(self) -> Any:
        if self._stack[-1] is _MARK:
            raise ValueError("a mark where a value should be")
        return self._stack[-1]

    def _stop(self, _: Any) -> None:
        self.result = self._pop()

    def _put(self, index: Any) -> None:
        self._memo[int(index)] = self._top()

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    def _get(self, index: Any) -> None:
        self._stack.append(self._memo[int(index)])

    # -- containers ------------------------------------------------------------------------

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Opaque):
            raise TypeError("an item for something that holds none")

    def _set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._fill(self._top(), [key, value])

    def _set_items(self, _: Any) -> None:
        items = self._pop_to_mark()
        self._fill(self._top(), items)

    @staticmethod
    def _fill(holder: Any, items: list[Any]) -> Any:
        target = holder.items if isinstance(holder, Opaque) else holder
        if not isinstance(target, dict):
            raise TypeError("an item for something that holds none")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key if _is_plain(key) else Opaque(type(key).__name__)] = value
        return holder

    def _list(self, _: Any) -> None:
        self._stack.append(self._pop_to_mark())

    def _tuple_of(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))


#: Operations that put their own argument on the stack.
CONSTANTS = frozenset({
    "INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
})  # fmt: skip
#: Those whose argument is text of Python 2.
STRINGS = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})
#: Those that put something new on the stack.
VALUES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,  # order and repetition do not matter, and lists need no hash
}
#: What each other operation of this kind does.
DATA_HANDLERS: dict[str, Callable[[StackMachine, Any], object]] = {
    "MARK": lambda machine, _: machine._stack.append(_MARK),
    "POP": lambda machine, _: machine._stack.pop(),
    "POP_MARK": lambda machine, _: machine._pop_to_mark(),
    "DUP": lambda machine, _: machine._stack.append(machine._top()),
    "STOP": StackMachine._stop,
    "PUT": StackMachine._put,
    "BINPUT": StackMachine._put,
    "LONG_BINPUT": StackMachine._put,
    "MEMOIZE": StackMachine._memoize,
    "GET": StackMachine._get,
    "BINGET": StackMachine._get,
    "LONG_BINGET": StackMachine._get,
    "APPEND": lambda machine, _: machine._extend([machine._pop()]),
    "APPENDS": lambda machine, _: machine._extend(machine._pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine._extend(machine._pop_to_mark()),
    "SETITEM": StackMachine._set_item,
    "SETITEMS": StackMachine._set_items,
    "DICT": lambda machine, _: machine._stack.append(machine._fill({}, machine._pop_to_mark())),
    "LIST": StackMachine._list,
    "FROZENSET": StackMachine._list,
    "TUPLE": lambda machine, _: machine._stack.append(tuple(machine._pop_to_mark())),
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
}
