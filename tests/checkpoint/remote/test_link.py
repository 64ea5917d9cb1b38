import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlmerge.checkpoint.remote import link as links
from rlmerge.checkpoint.remote.link import Link

SIZE = 4096


class File:
    """Bytes 0, 1, 2 … that are fetched when ``gate`` opens; ``asked`` are the ranges."""

    def __init__(self, size=SIZE, offset=0):
        self.data = np.frombuffer(bytes(i % 251 for i in range(size + offset)), np.uint8)[offset:]
        self.asked = []
        self.gate = threading.Event()
        self.gate.set()
        self.flying = self.most = 0
        self.lock = threading.Lock()

    def fetch(self, first, last):
        with self.lock:
            self.asked.append((first, last))
            self.flying += 1
            self.most = max(self.most, self.flying)
        assert self.gate.wait(10)
        with self.lock:
            self.flying -= 1
        return self.data[first:last]


@pytest.fixture
def pieces(monkeypatch):
    """Requests of at most 64 bytes."""
    monkeypatch.setattr(links, "PIECE", 64)


def until(condition):
    """Wait for what other threads do."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_what_nobody_asked_for_ahead_is_fetched_in_pieces(pieces):
    file, link = File(), Link()
    np.testing.assert_array_equal(link.read(file, 10, 210), file.data[10:210])
    assert sorted(file.asked) == [(10, 74), (74, 138), (138, 202), (202, 210)]


def test_a_prefetched_range_is_fetched_once_whatever_parts_are_read(pieces):
    file, link = File(), Link()
    link.prefetch(file, 0, 100)
    for first, last in ((0, 30), (30, 70), (70, 100)):
        np.testing.assert_array_equal(link.read(file, first, last), file.data[first:last])
    assert sorted(file.asked) == [(0, 64), (64, 100)]


def test_requests_grow_while_they_wait_and_never_beyond_a_piece(pieces):
    """With one connection: the first range starts alone, the others wait and become 64 bytes each."""
    file, link = File(), Link(connections=1)
    file.gate.clear()
    for first in range(0, 160, 16):
        link.prefetch(file, first, first + 16)
    file.gate.set()
    np.testing.assert_array_equal(link.read(file, 0, 160), file.data[:160])
    assert file.asked == [(0, 16), (16, 80), (80, 144), (144, 160)]


def test_what_was_read_stays_while_there_is_room_and_goes_when_there_is_none():
    file, link = File(), Link(capacity=1000)
    for _ in range(2):
        link.prefetch(file, 0, 500)
        link.read(file, 0, 500)
    assert file.asked == [(0, 500)], "the second pass costs nothing"
    link.prefetch(file, 1000, 1900)
    link.read(file, 1000, 1900)
    link.read(file, 0, 500)
    assert file.asked == [(0, 500), (1000, 1900), (0, 500)]
    assert link.held <= 1000


def test_what_is_under_way_and_unread_stays_within_the_capacity(pieces):
    file, link = File(), Link(connections=4, capacity=256)
    link.prefetch(file, 0, SIZE)
    until(lambda: len(file.asked) == 4 and not file.flying)
    assert link.held == 256 and len(file.asked) == 4
    np.testing.assert_array_equal(link.read(file, 0, SIZE), file.data)
    assert file.most <= 4 and link.held <= 256
    assert len(file.asked) == SIZE // 64, "nothing was fetched twice"


def test_half_of_the_memory_is_for_what_is_on_its_way(pieces):
    """So that the next requests are under way when those that end together are read."""
    file, link = File(), Link(connections=8, capacity=256)
    file.gate.clear()
    link.prefetch(file, 0, SIZE)
    until(lambda: len(file.asked) == 2)
    time.sleep(0.05)
    assert len(file.asked) == 2
    file.gate.set()
    until(lambda: len(file.asked) == 4)
    assert file.most == 2


def test_a_request_larger_than_half_of_the_memory_goes_alone(pieces):
    file, link = File(), Link(connections=8, capacity=100)
    np.testing.assert_array_equal(link.read(file, 0, 256), file.data[:256])
    assert file.most == 1


def test_a_reader_gets_through_where_others_left_what_they_never_read(pieces):
    file, link = File(), Link(capacity=128)
    link.prefetch(file, 0, 128)
    until(lambda: link.held == 128)
    np.testing.assert_array_equal(link.read(file, 1000, 2000), file.data[1000:2000])
    assert link.held <= 128


def test_an_error_reaches_the_reader_and_the_next_one_tries_again():
    file, link = File(), Link()
    good, file.fetch = file.fetch, lambda first, last: 1 / 0
    link.prefetch(file, 0, 10)
    with pytest.raises(ZeroDivisionError):
        link.read(file, 0, 10)
    assert link.held == 0
    file.fetch = good
    np.testing.assert_array_equal(link.read(file, 0, 10), file.data[:10])


def test_a_forgotten_file_holds_nothing_when_its_requests_end():
    file, link = File(), Link(connections=1)
    file.gate.clear()
    link.prefetch(file, 0, 10)
    link.prefetch(file, 20, 30)
    link.forget(file)
    file.gate.set()
    until(lambda: not file.flying and link.held == 0)
    assert file.asked == [(0, 10)], "what waited was never asked for"


def test_results_cannot_be_changed_and_their_elements_can_be_loaded():
    """From an odd offset the bytes are copied to a place whose remainder by 8 is the offset's."""
    file, link = File(offset=3), Link()
    for first in (0, 8, 16):
        found = link.read(file, first, first + 80)
        assert found.view(np.float64).flags.aligned and not found.flags.writeable
        np.testing.assert_array_equal(found, file.data[first : first + 80])


def test_many_readers_at_once(pieces):
    files, link = [File(), File()], Link(connections=3, capacity=512)
    wrong = []

    def work(number):
        for first in range(number * 16, SIZE - 48, 64):
            for file in files:
                link.prefetch(file, first, first + 48)
                if not np.array_equal(link.read(file, first, first + 48), file.data[first : first + 48]):
                    wrong.append(first)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not wrong and not any(thread.is_alive() for thread in threads)


RANGES = st.tuples(st.integers(0, SIZE - 1), st.integers(1, 300)).map(lambda x: (x[0], min(SIZE, sum(x))))


@given(
    st.lists(st.tuples(st.sampled_from(["prefetch", "read", "forget"]), RANGES), max_size=30),
    st.integers(1, 4),
    st.sampled_from([1, 100, 1000]),
)
def test_reads_give_the_files_bytes_whatever_was_asked_for_before(steps, connections, capacity):
    file, link = File(), Link(connections, capacity)
    for action, (first, last) in steps:
        if action == "prefetch":
            link.prefetch(file, first, last)
        elif action == "forget":
            link.forget(file)
        else:
            np.testing.assert_array_equal(link.read(file, first, last), file.data[first:last])
    link.forget(file)
    until(lambda: link.held == 0)
