"""Read a pickle as data, with a machine that cannot run anything.

The index of a torch file is a pickle program. This machine interprets the part of the language
that builds data (https://docs.python.org/3/library/pickletools.html). A name such as
``torch._utils._rebuild_tensor_v2`` stands for itself: nothing is imported or called. What comes
out are dictionaries, lists, tuples, plain values, :class:`TensorRef`, and an :class:`Opaque` for
every object of a type that is not known here. Nothing turns this off.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO, Any

from collapse_audit.containers.limits import INDEX_BYTES, KEY_CHARACTERS
from collapse_audit.containers.pickle_names import is_known, means_harm
from collapse_audit.containers.pickled import (
    Name,
    Opaque,
    StorageRef,
    TensorRef,
    storage_of,
    tensor_of,
    tensor_of_array,
)
from collapse_audit.containers.stack_machine import (
    CONSTANTS,
    DATA_HANDLERS,
    STRINGS,
    VALUES,
    StackMachine,
    too_long,
)
from collapse_audit.errors import CheckpointError, CollapseAuditError, UnsafePickleError
from collapse_audit.words import printable

_BYTES_COPIED = 64  # in one operation
_WRAPPED_CALLS = 64  # calls that make a call: two in genuine files
_DICTIONARIES = frozenset({"OrderedDict", "dict", "defaultdict", "Counter"})
_VALUE_ATTRIBUTES = frozenset({"data", "real", "imag"})


@dataclass(frozen=True, slots=True)
class Index:
    """What a pickle describes."""

    root: Any  # the outermost object
    unread: tuple[str, ...]  # names of the unknown types of objects, in the order of the file
    storages: dict[str, StorageRef]  # every block of values named, also those of no tensor


def read_index(program: bytes | IO[bytes], name: str) -> Index:
    """Interpret one pickle program as data; a file is left standing behind its end."""
    if isinstance(program, bytes) and len(program) > INDEX_BYTES:
        raise too_long(name, len(program))
    machine = _Machine(name)
    try:
        for opcode, argument, _ in pickletools.genops(program):
            machine.step(opcode.name, argument)
    except CollapseAuditError:
        raise
    # A damaged program makes the steps fail in all these ways; they mean the same. MemoryError: of
    # a text that would be longer than all memory.
    except (
        ValueError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError,
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"{name}: damaged or truncated: its index ends in {type(error).__name__} "
            f"({printable(error, 80)}).",
            hint="Download it again and compare its size with the source.",
        ) from None
    return Index(machine.result, tuple(machine.unread), machine.storages)


def _is_lazy(rest: tuple[Any, ...]) -> bool:
    """Whether the arguments behind the usual ones have torch negate or conjugate when it reads."""
    return any(isinstance(f, dict) and (f.get("neg") or f.get("conj")) for f in rest[:1])


def _moves(state: Any) -> bool:
    """Whether a state of a tensor is more than the three flags of torch before 0.4."""
    return not (
        isinstance(state, tuple)
        and len(state) == 3
        and not any(isinstance(part, StorageRef | TensorRef) for part in state)
    )


class _Machine(StackMachine):
    """The operations that name, call and build things, beside those that move data."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.unread: dict[str, None] = {}
        self.storages: dict[str, StorageRef] = {}
        self._blocks: dict[Any, tuple[Any, ...]] = {}

    def step(self, opcode: str, argument: Any) -> None:
        self._count(1)
        if opcode in CONSTANTS:
            self._stack.append(argument)
        elif opcode in STRINGS:  # bytes of Python 2, which torch takes for UTF-8
            self._stack.append(argument.encode("latin-1").decode("utf-8", "surrogateescape"))
        elif opcode in VALUES:
            self._stack.append(VALUES[opcode]())
        elif handler := _HANDLERS.get(opcode):
            handler(self, argument)
        elif opcode not in {"PROTO", "FRAME"}:
            raise self._unsafe(f"uses the operation {opcode}")

    def _unsafe(self, what: str) -> UnsafePickleError:
        return UnsafePickleError(
            f"{self._name}: its pickle {what}, which no checkpoint needs; nothing was executed.",
            hint="Whoever unpickles this file runs it: do not. Get it from its source again.",
        )

    def _global(self, argument: Any) -> None:
        module, _, name = str(argument).partition(" ")
        self._stack.append(self._named(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name that is no text")
        self._stack.append(self._named(module, name))

    def _named(self, module: str, name: str) -> Name:
        if len(module) + len(name) > KEY_CHARACTERS:
            raise ValueError("a name of absurd length")
        if means_harm(module, name):
            raise self._unsafe(f"names {printable(f'{module}.{name}', 120)}")
        found = Name(module, name)
        if not is_known(str(found)):
            self.unread[printable(found, 120)] = None
        return found

    def _persistent(self, _: Any) -> None:
        identifier = self._pop()
        # files before torch 1.6 wrap the class of a module together with its source text
        is_class = identifier[0] == "module" and isinstance(identifier[1], Name)
        if is_class:
            self._stack.append(identifier[1])
            return
        storage = storage_of(identifier)
        if storage.root_numel:
            self._claim(storage.key, (storage.dtype, storage.root_numel))
        if view := identifier[5] if len(identifier) > 5 else None:
            self._claim(view[0], (storage.key, storage.offset, storage.numel))
        self.storages.setdefault(storage.key, storage)
        self._stack.append(storage)

    def _claim(self, key: Any, what: tuple[Any, ...]) -> None:
        """Refuse one name for two blocks: readers take different ones."""
        if self._blocks.setdefault(key, what) != what:
            raise ValueError("a storage that is described twice, and not alike")

    def _reduce(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        self._stack.append(self._call(function, arguments))

    def _new(self, _: Any) -> None:
        arguments, function = self._pop(), self._pop()
        if isinstance(function, Name) and function.name in _DICTIONARIES:
            arguments = ()  # for __new__ makes them empty
        self._stack.append(self._call(function, arguments))

    def _new_with_keywords(self, _: Any) -> None:
        self._pop()
        self._new(_)

    def _instance(self, argument: Any) -> None:
        arguments = self._pop_to_mark()
        module, _, name = str(argument).partition(" ")
        self._stack.append(self._call(self._named(module, name), tuple(arguments)))

    def _object(self, _: Any) -> None:
        function, *arguments = self._pop_to_mark()
        self._stack.append(self._call(function, tuple(arguments)))

    def _call(self, function: Any, arguments: Any) -> Any:
        """What a call would give, for the calls that lead to tensors; else an opaque object."""
        for _ in range(_WRAPPED_CALLS):
            if isinstance(function, Opaque):  # what a call of an unknown name gave is called
                return Opaque(function.kind)
            if not isinstance(function, Name):
                raise self._unsafe("calls something that is no name")
            if not isinstance(arguments, tuple):
                raise TypeError("arguments that are no tuple")
            if function.name != "_rebuild_from_type_v2":
                return self._made(function, arguments)
            self._check_attributes(arguments[3])
            function, arguments = arguments[0], arguments[2]
        raise self._unsafe("makes calls that make calls")

    def _made(self, function: Name, arguments: tuple[Any, ...]) -> Any:  # noqa: PLR0911
        match function.name:
            case "_rebuild_tensor_v2" | "_rebuild_tensor":
                tensor = tensor_of(arguments)
                return self._left(function) if _is_lazy(arguments[6:]) else tensor
            case "_rebuild_tensor_v3":
                tensor = tensor_of(arguments, arguments[6])
                return self._left(function) if _is_lazy(arguments[7:]) else tensor
            case "_rebuild_device_tensor_from_cpu_tensor":  # (tensor, type, device, ...)
                tensor, dtype = arguments[:2]
                as_stored = isinstance(tensor, TensorRef) and str(dtype) == f"torch.{tensor.dtype}"
                return tensor if as_stored else self._left(function)
            case "_rebuild_device_tensor_from_numpy":  # (array, type, device, ...)
                if (made := tensor_of_array(*arguments[:2])) is None:
                    return self._left(function)
                self._count(len(made.storage.data or b"") // _BYTES_COPIED)
                return made
            case "_rebuild_parameter_with_state":
                self._check_attributes(arguments[3])
                return arguments[0]
            case "_rebuild_parameter" | "Parameter" | "Buffer":
                return arguments[0] if arguments else Opaque(str(function))
            case "Counter" if arguments and not isinstance(arguments[0], dict):
                return {}  # of the elements, and not of pairs
            case kind if kind in _DICTIONARIES:
                return self._fill({}, self._pairs(arguments))
            case "Size" | "tuple" | "list":
                held = arguments[0] if arguments else ()
                return held if isinstance(held, tuple | list) else Opaque(str(function))
            case "_reconstructor":  # of protocol 0 and 1: (class, base, state of the base)
                made = self._call(arguments[0], ())
                held = arguments[2] if len(arguments) > 2 else None
                return self._fill(made, self._pairs((held,))) if isinstance(held, dict) else made
        return Opaque(str(function), arguments=arguments)

    def _left(self, function: Name) -> Opaque:
        """A tensor that is not read, which the reader of the result hears about."""
        self.unread[str(function)] = None
        return Opaque(str(function))

    def _pairs(self, arguments: tuple[Any, ...]) -> list[Any]:
        """Keys and values in turn, of a call that fills a dictionary."""
        held = arguments[-1] if arguments else None
        if not isinstance(held, dict | list | tuple):
            return []
        self._count(len(held))
        pairs: Iterable[Any] = held.items() if isinstance(held, dict) else held
        pairs = [pair for pair in pairs if isinstance(pair, tuple | list) and len(pair) == 2]
        return [part for pair in pairs for part in pair]

    def _build(self, _: Any) -> None:
        state = self._pop()
        target = self._top()
        if isinstance(target, Opaque):
            target.state = state
        elif isinstance(target, StorageRef) or (isinstance(target, TensorRef) and _moves(state)):
            raise self._unsafe("gives a tensor other values")

    def _check_attributes(self, state: Any) -> None:
        """Refuse attributes of a tensor that change its values."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict) and not _VALUE_ATTRIBUTES.isdisjoint(part):
                raise self._unsafe("gives a tensor other values")


_HANDLERS: dict[str, Callable[[_Machine, Any], object]] = {
    **DATA_HANDLERS,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "BINPERSID": _Machine._persistent,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._new,
    "NEWOBJ_EX": _Machine._new_with_keywords,
    "INST": _Machine._instance,
    "OBJ": _Machine._object,
    "BUILD": _Machine._build,
}
