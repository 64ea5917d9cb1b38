import os

import pytest

from rlmerge.checkpoint.journal import NAME, Journal, JournalEntry, read_journal

ENTRIES = [
    JournalEntry("a", "one", "00ff", {"survived": 3, "share": 0.1 + 0.2, "name": "é"}),
    JournalEntry("b", "two", "11ee", {}),
]


@pytest.fixture
def journal(tmp_path):
    writer = Journal(tmp_path, "digest")
    for entry in ENTRIES:
        writer.append(entry)
    writer.close()
    return tmp_path / NAME


def test_round_trip(journal):
    assert read_journal(journal.parent) == ("digest", ENTRIES)


def test_no_journal(tmp_path):
    assert read_journal(tmp_path) is None
    (tmp_path / NAME).write_bytes(b"")
    assert read_journal(tmp_path) is None


def test_a_tail_torn_at_any_byte_costs_at_most_its_own_line(journal):
    octets = journal.read_bytes()
    ends = [index + 1 for index, octet in enumerate(octets) if octet == ord("\n")]
    for size in range(len(octets)):
        journal.write_bytes(octets[:size])
        whole = sum(end <= size for end in ends)
        expected = ("digest", ENTRIES[: whole - 1]) if whole else None
        assert read_journal(journal.parent) == expected


def test_a_changed_byte_ends_what_is_believed(journal):
    octets = bytearray(journal.read_bytes())
    second = octets.index(b"\n") + 1
    for position in (second, second + 20, octets.index(b"\n", second)):
        changed = bytearray(octets)
        changed[position] ^= 1
        journal.write_bytes(changed)
        assert read_journal(journal.parent) == ("digest", [])


def test_a_first_line_without_a_plan(journal):
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[1:]))
    assert read_journal(journal.parent) is None


def test_beginning_again_keeps_only_what_is_given(journal):
    Journal(journal.parent, "digest", ENTRIES[1:]).close()
    assert read_journal(journal.parent) == ("digest", ENTRIES[1:])


def test_the_old_journal_stays_until_the_new_one_is_whole(journal, monkeypatch):
    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        Journal(journal.parent, "digest", ENTRIES[1:])
    assert read_journal(journal.parent) == ("digest", ENTRIES)


def test_entries_by_tensor(tmp_path):
    journal = Journal(tmp_path, "digest", ENTRIES[:1])
    journal.append(ENTRIES[1])
    assert journal.entries == {"a": ENTRIES[0], "b": ENTRIES[1]}
    journal.remove()
    assert journal.entries == {"a": ENTRIES[0], "b": ENTRIES[1]}
    assert not (tmp_path / NAME).exists()
