import json
import os

import pytest
import xxhash

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
    journal.close()


def signed(content):
    """A journal line with a valid checksum."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return xxhash.xxh3_64_hexdigest(text).encode() + b" " + text + b"\n"


ENTRY = {"tensor": "c", "shard": "one", "xxh3": "22", "stats": {}}
ODD = [
    None, True, 7, 1.5, "x", [], {}, [ENTRY], {"plan": "digest"}, {**ENTRY, "more": 1}, {"tensor": "c"},
    *({**ENTRY, key: value} for key in ("tensor", "shard", "xxh3") for value in (None, 1, [], {}, True)),
    *({**ENTRY, "stats": value} for value in (None, 1, "x", [], True)),
    *({**ENTRY, "shard": name} for name in ("", ".", "..", "../x", "/etc/passwd", "a/b", "a\x1b", "\ud800")),
    b"", b"{", b"[" * 100_000, b"\xff", b'{"tensor": "c", "tensor": "d"}', b"1" * 5000, b'"\\ud800"',
]  # fmt: skip


@pytest.mark.parametrize("content", ODD, ids=range(len(ODD)))
def test_a_line_with_a_valid_checksum_and_odd_content_ends_what_is_believed(journal, content):
    octets = journal.read_bytes()
    journal.write_bytes(octets + signed(content) + signed(ENTRY))
    assert read_journal(journal.parent) == ("digest", ENTRIES)
    journal.write_bytes(signed(content) + octets)
    assert content == {"plan": "digest"} or read_journal(journal.parent) is None


@pytest.mark.parametrize("plan", [None, 1, [], {}, True])
def test_a_plan_that_is_no_digest(journal, plan):
    journal.write_bytes(signed({"plan": plan}))
    assert read_journal(journal.parent) is None


def test_what_is_no_file(tmp_path):
    (tmp_path / NAME).mkdir()
    assert read_journal(tmp_path) is None
    (tmp_path / NAME).rmdir()
    os.mkfifo(tmp_path / NAME)
    assert read_journal(tmp_path) is None
    (tmp_path / NAME).unlink()
    (tmp_path / "elsewhere").write_bytes(signed({"plan": "digest"}))
    (tmp_path / NAME).symlink_to("elsewhere")
    assert read_journal(tmp_path) is None


def test_the_first_line_is_on_disk_before_the_journal_has_its_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: events.append("fsync") or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda *paths: events.append("replace") or replace(*paths))
    Journal(tmp_path, "digest").close()
    assert events == ["fsync", "replace", "fsync"]
