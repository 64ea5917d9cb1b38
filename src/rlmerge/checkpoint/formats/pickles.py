"""Pickles interpreted without being executed: a closed set of opcodes makes plain data, named objects become records.

Nothing is imported or called, whatever a pickle says. What a name in a pickle may stand for is given as a vocabulary;
a name outside it, like an opcode outside the set, ends the reading.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from rlmerge.checkpoint.formats.records import Malformed, Name, Record
from rlmerge.errors import CheckpointError

MAX_PICKLE = 256 * 2**20
"""Longest pickle interpreted, in bytes."""

MAX_CONTAINERS = 8 * 2**20
"""Most tuples, lists, dictionaries and records made of one pickle, each some 60 bytes of memory or more."""

_KEYS = (str, int, float, bool, type(None))


Call = Callable[[str, tuple[Any, ...]], Any]
"""What calling a name with arguments makes. Malformed if it cannot."""

Persistent = Callable[[Any], Any]
"""What a persistent id stands for. Malformed if it cannot stand for anything."""


def interpret(
    data: bytes, where: str, vocabulary: Mapping[tuple[str, str], str], call: Call, persistent: Persistent
) -> Any:
    """The object that ``data`` describes: plain data and Records.

    CheckpointError that starts with ``where`` if the pickle is malformed, too large, names something outside the
    ``vocabulary`` of (module, name) → kind, or uses an opcode that no checkpoint needs.
    """
    if len(data) > MAX_PICKLE:
        what = f"holds a pickle of {len(data)} bytes; at most {MAX_PICKLE} are read"
        raise CheckpointError(what, where=where, hint=_HINT)
    machine = _Machine(data, vocabulary, call, persistent)
    try:
        return machine.run()
    except Malformed as error:
        what = f"holds a pickle that cannot be read without running it: {error} (byte {machine.at})"
    except (IndexError, struct.error):
        what = f"holds a malformed pickle (byte {machine.at} of {len(data)})"
    raise CheckpointError(what, where=where, hint=_HINT)


class _Machine:
    """The state of an interpretation; ``at`` is the next byte."""

    def __init__(
        self, data: bytes, vocabulary: Mapping[tuple[str, str], str], call: Call, persistent: Persistent
    ) -> None:
        self.data = data
        self.at = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.vocabulary = vocabulary
        self.call = call
        self.persistent = persistent
        self.containers = 0

    def run(self) -> Any:
        data, operations = self.data, _OPERATIONS
        while True:
            code = data[self.at]
            self.at += 1
            if code == _STOP:
                break
            operation = operations.get(code)
            if operation is None:
                raise Malformed(f"it uses the opcode {bytes([code])!r}")
            operation(self)
        if len(self.stack) != 1:
            raise Malformed(f"it ends with {len(self.stack)} objects")
        return self.stack[0]

    def bytes(self, count: int) -> bytes:
        begin = self.at
        if begin + count > len(self.data):
            raise Malformed("it is cut off")
        self.at = begin + count
        return self.data[begin : self.at]

    def number(self, layout: struct.Struct) -> Any:
        (value,) = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return value

    def text(self, count: int) -> str:
        try:
            return self.bytes(count).decode()
        except UnicodeDecodeError:
            raise Malformed("a string is not UTF-8") from None

    def line(self) -> str:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise Malformed("it is cut off")
        text = self.text(end - self.at)
        self.at = end + 1
        return text

    def made(self, value: Any) -> None:
        """Push something that takes memory of its own."""
        self.containers += 1
        if self.containers > MAX_CONTAINERS:
            raise Malformed(f"it makes more than {MAX_CONTAINERS} objects")
        self.stack.append(value)

    def marked(self) -> list[Any]:
        """Take what lies above the last mark."""
        begin = self.marks.pop()
        items = self.stack[begin:]
        del self.stack[begin:]
        return items

    def name(self, module: Any, name: Any) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("a global has no name")
        kind = self.vocabulary.get((module, name))
        if kind is None:
            raise Malformed(f"it names {f'{module}.{name}'[:100]!r}, which no checkpoint needs")
        return Name(kind)

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise Malformed("it refers to an object that was not made")
        self.stack.append(self.memo[index])

    def set_item(self, key: Any, value: Any) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise Malformed("it sets an item of something that is not a dictionary")
        target[_key(key)] = value


def _key(value: Any) -> Any:
    """What stands for a key: plain values, flat tuples of them, and for a record its (attribute, value) pairs, sorted.

    Nothing deeper, since hashing and comparing tuples of tuples can take time without end.
    """
    if isinstance(value, _KEYS) or (isinstance(value, tuple) and _is_flat(value)):
        return value
    if (
        isinstance(value, Record)
        and isinstance(value.state, dict)
        and all(isinstance(name, str) for name in value.state)
    ):
        pairs: list[tuple[str, Any]] = sorted(value.state.items(), key=_name_of)
        if all(isinstance(part, _KEYS) or (isinstance(part, tuple) and _is_flat(part)) for _, part in pairs):
            return tuple(pairs)
    raise Malformed("the key of a dictionary is not plain")


def _name_of(pair: tuple[str, Any]) -> str:
    return pair[0]


def _is_flat(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, _KEYS) for value in values)


def _empty_list(m: _Machine) -> None:
    m.made([])


def _empty_dict(m: _Machine) -> None:
    m.made({})


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def make(m: _Machine) -> None:
        if len(m.stack) < count:
            raise IndexError
        begin = len(m.stack) - count
        items = tuple(m.stack[begin:])
        del m.stack[begin:]
        m.made(items)

    return make


def _constant(value: Any) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(value)


def _number(layout: str) -> Callable[[_Machine], None]:
    packed = struct.Struct(layout)
    return lambda m: m.stack.append(m.number(packed))


def _text(layout: str) -> Callable[[_Machine], None]:
    packed = struct.Struct(layout)
    return lambda m: m.stack.append(m.text(m.number(packed)))


def _long(m: _Machine) -> None:
    m.stack.append(int.from_bytes(m.bytes(m.number(_BYTE)), "little", signed=True))


def _append(m: _Machine) -> None:
    value = m.stack.pop()
    _extend(m, [value])


def _extend(m: _Machine, values: list[Any]) -> None:
    if type(m.stack[-1]) is not list:
        raise Malformed("it appends to something that is not a list")
    m.stack[-1].extend(values)


def _set_one(m: _Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.set_item(key, value)


def _set_all(m: _Machine) -> None:
    items = m.marked()
    if len(items) % 2:
        raise Malformed("a key has no value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        m.set_item(key, value)


def _global(m: _Machine) -> None:
    module = m.line()
    m.stack.append(m.name(module, m.line()))


def _stack_global(m: _Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.stack.append(m.name(module, name))


def _reduce(m: _Machine) -> None:
    args, called = m.stack.pop(), m.stack.pop()
    if not isinstance(args, tuple):
        raise Malformed("arguments are not a tuple")
    if isinstance(called, Record):
        m.made(Record("result", (called, *args)))
    elif isinstance(called, Name):
        m.made(m.call(called.kind, args))
    else:
        raise Malformed("it calls something that has no name")


def _new_object(m: _Machine) -> None:
    args, named = m.stack.pop(), m.stack.pop()
    if not isinstance(args, tuple) or not isinstance(named, Name | Record):
        raise Malformed("it makes an object of something that is no class")
    m.made(Record(named.kind if isinstance(named, Name) else "instance", args))


def _build(m: _Machine) -> None:
    state, target = m.stack.pop(), m.stack[-1]
    if isinstance(state, tuple) and len(state) == 2 and state[0] is None and isinstance(state[1], dict):
        state = state[1]  # of a class with slots
    if isinstance(target, Record):
        target.state = state
    elif not isinstance(target, dict):
        raise Malformed("it gives a state to something that has none")
    # The state of a dictionary is the _metadata of a state dict, versions of modules.


def _persistent(m: _Machine) -> None:
    m.made(m.persistent(m.stack.pop()))


_STOP = ord(".")
_BYTE = struct.Struct("<B")
_FOUR = struct.Struct("<I")

_OPERATIONS: dict[int, Callable[[_Machine], None]] = {
    0x80: lambda m: m.number(_BYTE),  # PROTO
    0x95: lambda m: m.number(struct.Struct("<Q")),  # FRAME
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("}"): _empty_dict,
    ord("]"): _empty_list,
    ord(")"): _constant(()),
    ord("N"): _constant(None),
    0x88: _constant(True),
    0x89: _constant(False),
    ord("K"): _number("<B"),  # BININT1
    ord("M"): _number("<H"),  # BININT2
    ord("J"): _number("<i"),  # BININT
    0x8A: _long,  # LONG1
    ord("G"): _number(">d"),  # BINFLOAT
    ord("X"): _text("<I"),  # BINUNICODE
    0x8C: _text("<B"),  # SHORT_BINUNICODE
    ord("q"): lambda m: m.put(m.number(_BYTE)),  # BINPUT
    ord("r"): lambda m: m.put(m.number(_FOUR)),  # LONG_BINPUT
    0x94: lambda m: m.put(len(m.memo)),  # MEMOIZE
    ord("h"): lambda m: m.get(m.number(_BYTE)),  # BINGET
    ord("j"): lambda m: m.get(m.number(_FOUR)),  # LONG_BINGET
    0x85: _tuple_of(1),
    0x86: _tuple_of(2),
    0x87: _tuple_of(3),
    ord("t"): lambda m: m.made(tuple(m.marked())),
    ord("a"): _append,
    ord("e"): lambda m: _extend(m, m.marked()),
    ord("s"): _set_one,
    ord("u"): _set_all,
    ord("c"): _global,
    0x93: _stack_global,
    ord("R"): _reduce,
    0x81: _new_object,
    ord("b"): _build,
    ord("Q"): _persistent,
}

_HINT = "If you trust its writer, load it there and save_pretrained(…, safe_serialization=True); then merge that."
