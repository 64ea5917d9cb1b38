"""Who holds the folder of an upload: one run at a time, whatever store and clock."""

import json
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("obstore")
pytest.importorskip("moto")

from rlmerge.checkpoint.remote import hold
from rlmerge.checkpoint.remote.hold import MARKER, Hold, holder_of
from rlmerge.checkpoint.remote.outbox import Outbox, Small
from rlmerge.errors import RequestError, RunError

PLACE = f".merged.partial/{MARKER}"


@pytest.fixture
def machine(s3_endpoint, tmp_path):
    """Makes the hold of a run on the machine of a name; all end with the test."""
    made = []

    def make(name):
        made.append(Hold(Outbox("s3://bucket/models"), "merged", tmp_path / name, "digest"))
        return made[-1]

    yield make
    for each in made:
        each.end(let_go=False)


def marker():
    return Outbox("s3://bucket/models").read_small(PLACE, 10**6)


def test_of_two_machines_the_second_is_refused(machine):
    first = machine("a")
    first.take()
    before = marker()
    with pytest.raises(RequestError, match=r"another run is writing there: .*@.*, process ") as error:
        machine("b").take()
    assert error.value.where == "s3://bucket/models/merged"
    assert f"remove s3://bucket/models/{PLACE}" in error.value.hint and "10 minutes" in error.value.hint
    assert marker() == before
    assert list(Outbox("s3://bucket/models").below(".merged.partial")) == [MARKER]
    first.check()


def test_the_marker_names_the_run_and_holds_no_secret(machine):
    machine("a").take()
    content = json.loads(marker().data)
    assert set(content) == {"rlmerge", "plan", "folder", "owner"} and content["plan"] == "digest"
    assert b"hunter2" not in marker().data


def test_a_killed_run_of_this_machine_is_continued_at_once(machine):
    """Its cache directory, which a lock of the file system guards, is known by its number."""
    machine("a").take()
    again = machine("a")
    again.take()
    again.check()


def test_what_was_let_go_of_is_free(machine):
    first = machine("a")
    first.take()
    first.end(let_go=True)
    machine("b").take()


def test_a_run_without_a_sign_of_life_is_replaced_and_finds_it_out(machine, monkeypatch):
    monkeypatch.setattr(hold, "RENEWED", 0.02)
    first = machine("a")
    first._ended.set()  # Its thread stands still: so does a machine that sleeps.
    monkeypatch.setattr(first._ended, "clear", lambda: None)
    first.take()
    monkeypatch.setattr(hold, "STALE", -1.0)
    second = machine("b")
    second.take()
    with pytest.raises(RunError, match="another run has taken over") as error:
        first.check()
    assert "--resume" in error.value.hint
    second.check()


def test_signs_of_life_are_renewed_and_a_loss_is_noticed(machine, monkeypatch):
    monkeypatch.setattr(hold, "RENEWED", 0.02)
    first = machine("a")
    first.take()
    before = marker().data
    wait_for(lambda: marker().data != before)
    first.check()
    monkeypatch.setattr(hold, "STALE", -1.0)
    wait_for(lambda: taken(machine("b")))
    wait_for(lambda: first._outbox.failure is not None)
    with pytest.raises(RunError, match="another run has taken over"):
        first._outbox._go_on()


def taken(other):
    """Whether another run could take over, which a renewal at the same moment prevents."""
    try:
        other.take()
    except RequestError:
        return False
    return True


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def raced(monkeypatch, second, first):
    """``first`` takes the folder in the moment after ``second`` has found it free."""
    read, calls = second._outbox.read_small, []

    def read_small(name, limit):
        found = read(name, limit)
        if not calls:
            calls.append(name)
            assert found is None
            first.take()
        return found

    monkeypatch.setattr(second._outbox, "read_small", read_small)


def test_of_two_that_find_it_free_at_the_same_moment_one_is_refused(machine, monkeypatch):
    first, second = machine("a"), machine("b")
    raced(monkeypatch, second, first)
    with pytest.raises(RequestError, match="another run is writing there"):
        second.take()
    first.check()


def test_in_a_store_without_conditions_the_loser_finds_out_before_the_index(machine, monkeypatch):
    first, second = machine("a"), machine("b")
    library = second._outbox._library

    def put(store, name, data, *, mode=None, **more):
        return library.put(store, name, data, **more)

    for each in (first, second):
        blind = SimpleNamespace(get=library.get, delete=library.delete, put=put)
        monkeypatch.setattr(each._outbox, "_library", blind)
    raced(monkeypatch, second, first)
    second.take()
    with pytest.raises(RunError, match="another run has taken over"):
        first.check()


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"owner": 1}', b'{"owner": {"id": 1, "who": "x", "began": "y"}}', b"\xff", b"[" * 9000]
)
def test_a_marker_that_says_nothing_is_somebodys(machine, data, s3_endpoint):
    outbox = Outbox("s3://bucket/models")
    outbox.write_if(PLACE, data, None)
    with pytest.raises(RequestError, match="it does not say whose"):
        machine("a").take()


def test_names_in_a_marker_are_made_safe_to_show(machine):
    owner = {"id": "x", "who": "\x1b[31mroot\n" + "y" * 5000, "began": "\u202e"}
    Outbox("s3://bucket/models").write_if(PLACE, json.dumps({"owner": owner}).encode(), None)
    with pytest.raises(RequestError) as error:
        machine("a").take()
    assert "\x1b" not in error.value.what and "\u202e" not in error.value.what and len(error.value.what) < 300


def test_a_marker_that_is_too_large_is_not_read():
    assert holder_of(Small(b"", {}, None)) is None
