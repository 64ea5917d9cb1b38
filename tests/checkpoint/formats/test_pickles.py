import math
import os
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.checkpoint.formats import pickles
from rlmerge.checkpoint.formats.pickles import interpret
from rlmerge.checkpoint.formats.records import Malformed, Record
from rlmerge.errors import CheckpointError

VOCABULARY = {("shop", "Apple"): "Apple", ("shop", "weigh"): "weigh"}


def read(data):
    """Calls become records, persistent ids a tuple."""
    return interpret(data, "basket", VOCABULARY, Record, lambda id: ("kept", id))


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers(), st.text()), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(plain, st.sampled_from([2, 3, 4, 5]))
def test_plain_data_is_what_pickle_makes_of_it(value, protocol):
    assert read(pickle.dumps(value, protocol)) == value


def test_shared_and_recursive_objects():
    inner = []
    found = read(pickle.dumps([inner, inner], 2))
    assert found[0] is found[1]
    inner.append(inner)
    found = read(pickle.dumps(inner, 2))
    assert found[0] is found


def test_an_object_becomes_a_record():
    [apple] = read(b"\x80\x02](cshop\nApple\n(K\x07t\x81}X\x06\x00\x00\x00weightK\x09sbe.")
    assert (apple.kind, apple.args, apple.state) == ("Apple", (7,), {"weight": 9})
    assert apple.field("weight", 0) == 9
    assert apple.field("colour") is None
    called = read(b"\x80\x02cshop\nweigh\nK\x07\x85R.")
    assert (called.kind, called.args) == ("weigh", (7,))
    assert called.field("first", 0) == 7
    assert called.field("second", 1) is None
    slots = read(b"\x80\x02cshop\nApple\n)\x81N}X\x06\x00\x00\x00weightK\x09s\x86b.")
    assert slots.state == {"weight": 9}


def test_a_record_as_a_key_is_its_attributes_in_order_of_their_names():
    key = b"cshop\nApple\n)\x81}(X\x01\x00\x00\x00zK\x01X\x01\x00\x00\x00a(K\x02K\x03tub"
    assert read(b"\x80\x02}" + key + b"K\x05s.") == {(("a", (2, 3)), ("z", 1)): 5}


def test_a_persistent_id_is_given_away():
    assert read(b"\x80\x02X\x03\x00\x00\x00oneQ.") == ("kept", "one")


class Run:
    """Runs a command when unpickled."""

    def __init__(self, function, *arguments):
        self.by = (function, arguments)

    def __reduce__(self):
        return self.by


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "function", [os.system, eval, exec, print, getattr, __import__, open], ids=lambda f: f.__name__
)
def test_functions_are_neither_found_nor_called(tmp_path, protocol, function):
    data = pickle.dumps({"weight": Run(function, f"{tmp_path}/touched", "w")}, protocol)
    with pytest.raises(CheckpointError, match="cannot be read without running it"):
        read(data)
    assert not list(tmp_path.iterdir())


HOSTILE = {
    "a name that is not known": b"\x80\x02cshop\nPear\n.",
    "a method of a known class": b"\x80\x04\x8c\x04shop\x8c\x0eApple.__init__\x93.",
    "a name of numbers": b"\x80\x04K\x01K\x02\x93.",
    "a name without end": b"\x80\x02cshop\nApple",
    "a name that is not UTF-8": b"\x80\x02c\xff\n\xfe\n.",
    "the old way to make an instance": b"(K\x01ishop\nApple\n.",
    "the other old way": b"(cshop\nApple\nK\x01o.",
    "a registered extension": b"\x80\x02\x82\x01.",
    "an object with keyword arguments": b"\x80\x04cshop\nApple\n)}\x92.",
    "a call of a string": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "a call with a list": b"\x80\x02cshop\nweigh\n]R.",
    "an object of a number": b"\x80\x02K\x01)\x81.",
    "an object with a list": b"\x80\x02cshop\nApple\n]\x81.",
    "a state of a name": b"\x80\x02cshop\nApple\n}b.",
    "a state of a list": b"\x80\x02]}b.",
    "an item of a list": b"\x80\x02]K\x01K\x02s.",
    "an item of a tuple": b"\x80\x02K\x01\x85(K\x01e.",
    "a key without a value": b"\x80\x02}(K\x01u.",
    "a list as a key": b"\x80\x02}]K\x01s.",
    "a name as a key": b"\x80\x02}cshop\nApple\nK\x01s.",
    "a record of a list as a key": b"\x80\x02}cshop\nApple\n)\x81}X\x01\x00\x00\x00a]sbK\x01s.",
    "nothing": b"",
    "no end": b"\x80\x02K\x01",
    "two objects": b"\x80\x02K\x01K\x02.",
    "no object": b"\x80\x02.",
    "a memo that was never made": b"\x80\x02h\x05.",
    "the end of the stack": b"\x80\x02\x87.",
    "the end of the marks": b"\x80\x02t.",
    "a string that runs past the end": b"\x80\x02X\xff\xff\xff\xffab.",
    "a string that is not UTF-8": b"\x80\x02X\x01\x00\x00\x00\xff.",
    "half a surrogate": b"\x80\x02X\x03\x00\x00\x00\xed\xa0\x80.",
    "a number that runs past the end": b"\x80\x02\x8a\xff\x01.",
    "bytes": pickle.dumps(b"abc", 4),
    "a set": pickle.dumps({1, 2}, 4),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_what_is_refused(data):
    with pytest.raises(
        CheckpointError, match=r"^basket: holds a (malformed pickle|pickle that cannot be read)"
    ) as caught:
        read(data)
    assert caught.value.hint


def test_deep_keys_take_no_time():
    """A tuple of itself twice, sixty times over, would take 2 ** 60 steps to hash."""
    data = b"\x80\x02}K\x01K\x02\x86" + b"q\x00h\x00\x86" * 60 + b"K\x05s."
    with pytest.raises(CheckpointError, match="key of a dictionary is not plain"):
        read(data)


def test_size_and_memory_are_bounded(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_CONTAINERS", 1000)
    assert len(read(b"\x80\x02](" + b"]" * 900 + b"e.")) == 900
    for opcodes in (
        b"]" * 1001,
        b"}" * 1001,
        b"K\x01\x85" * 1001,
        b"cshop\nApple\n)\x81" * 1001,
        b"(" * 1001 + b"t" * 1001,
    ):
        with pytest.raises(CheckpointError, match="makes more than 1000 objects"):
            read(b"\x80\x02" + opcodes + b".")
    monkeypatch.setattr(pickles, "MAX_PICKLE", 100)
    with pytest.raises(CheckpointError, match="a pickle of 101 bytes; at most 100 are read"):
        read(bytes(101))


def test_nesting_without_end_is_read_and_dropped():
    deep = read(b"\x80\x02" + b"](" * 50_000 + b"e" * 50_000 + b".")
    depth = 0
    while deep:
        [deep], depth = deep, depth + 1
    assert depth == 49_999


def test_what_the_caller_refuses():
    def refuse(*_):
        raise Malformed("it weighs nothing")

    for data in (b"\x80\x02cshop\nweigh\n)R.", b"\x80\x02NQ."):
        with pytest.raises(CheckpointError, match=r"it weighs nothing \(byte \d+\)"):
            interpret(data, "basket", VOCABULARY, refuse, refuse)


def test_random_opcodes_are_read_or_refused():
    """Sequences of the opcodes that are known, with arguments: most end early, none in another error."""
    random.seed(2)
    known = [bytes([code]) for code in pickles._OPERATIONS if code not in b"c"]
    known += [
        b"cshop\nApple\n",
        b"cshop\nweigh\n",
        b"K\x01",
        b"X\x01\x00\x00\x00a",
        b"]",
        b"}",
        b")",
        b"q\x00",
        b"h\x00",
    ]
    outcomes = {True: 0, False: 0}
    for _ in range(6000):
        data = b"\x80\x02" + b"".join(random.choices(known, k=random.randrange(1, 25))) + b"."
        try:
            read(data)
            outcomes[True] += 1
        except CheckpointError:
            outcomes[False] += 1
    assert min(outcomes.values()) > 50


def test_floats_that_are_no_numbers():
    assert math.isnan(read(pickle.dumps(math.nan, 2)))
