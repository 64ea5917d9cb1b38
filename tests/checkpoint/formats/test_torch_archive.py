import struct
import zipfile

import pytest

from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.formats.torch_archive import Archive
from rlmerge.errors import CheckpointError
from support.torchfiles import save_members

MEMBERS = {"name/data.pkl": b"pickle", "name/data/0": b"12345678", "name/data/1": b""}


def opened(path, *window):
    return Archive(InputFile(path), *window)


def content(archive, name):
    begin, end = archive.span(name)
    return archive.file.path.read_bytes()[begin:end]


def test_members_lie_where_zipfile_finds_them(tmp_path):
    archive = opened(save_members(tmp_path / "f", MEMBERS))
    assert "data.pkl" in archive and "byteorder" not in archive
    for name, expected in MEMBERS.items():
        below = name.partition("/")[2]
        assert content(archive, below) == archive.content(below, 8) == expected


def test_what_torch_saves(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {f"t{i}": torch.arange(i * 300, dtype=torch.float32) for i in range(1, 9)}
    torch.save(tensors, tmp_path / "f")
    archive = opened(tmp_path / "f")
    with zipfile.ZipFile(tmp_path / "f") as known:
        for name in known.namelist():
            assert content(archive, name.partition("/")[2]) == known.read(name)
    assert archive.span("data/3")[0] % 64 == 0


def test_an_archive_inside_a_file(tmp_path):
    inner = save_members(tmp_path / "inner", MEMBERS).read_bytes()
    (tmp_path / "f").write_bytes(b"before" + inner + b"PK\5\6 after")
    archive = opened(tmp_path / "f", 6, 6 + len(inner))
    assert content(archive, "data/0") == b"12345678"
    for begin, end in ((6, 6 + len(inner) - 1), (5, 6 + len(inner)), (0, 6)):
        with pytest.raises(CheckpointError, match="no sound torch archive"):
            opened(tmp_path / "f", begin, end).span("data/0")
    with pytest.raises(CheckpointError, match="lie outside of its"):
        opened(tmp_path / "f", 6, 10_000)


def test_a_comment_longer_than_what_is_read_first(tmp_path):
    with zipfile.ZipFile(tmp_path / "f", "w") as archive:
        archive.writestr("name/data/0", b"12345678")
        archive.comment = b"x" * 60_000
    assert content(opened(tmp_path / "f"), "data/0") == b"12345678"


def wide(members):
    """A zip64 archive: every size and offset of the directory in eight bytes, as above 4 GiB."""
    data, entries = b"", b""
    for name, value in members.items():
        encoded = name.encode()
        extra = struct.pack("<HHQQQ", 1, 24, len(value), len(value), len(data))
        entry = (b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, len(encoded), len(extra) + 4, 0, 0, 0, 0)
        other = struct.pack("<HH", 7, 0)
        entries += struct.pack("<4s6H3L5H2L", *entry, 0xFFFFFFFF) + encoded + other + extra
        local = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, 0, 0, len(encoded), 5)
        data += local + encoded + b"extra" + value
    count = len(members)
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(entries), len(data))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(data) + len(entries), 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data + entries + end + locator + last


def test_numbers_of_eight_bytes(tmp_path):
    (tmp_path / "f").write_bytes(wide(MEMBERS))
    archive = opened(tmp_path / "f")
    assert content(archive, "data.pkl") == b"pickle"
    assert content(archive, "data/0") == b"12345678"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-30], "no end record"),
        (lambda data: b"", "no end record"),
        (lambda data: data.replace(b"PK\1\2", b"PK\1\3", 1), "directory is malformed"),
        (lambda data: data.replace(b"PK\6\6", b"PK\6\5", 1), "end is malformed"),
        (lambda data: data.replace(struct.pack("<HH", 1, 24), struct.pack("<HH", 2, 24)), "a size is missing"),
        (lambda data: data.replace(b"name/data/0", b"name/data/1"), "holds 'data/1' twice"),
        (lambda data: data.replace(b"name/data/0", b"name/data/\xff"), "not UTF-8"),
        (lambda data: data.replace(b"name/data/0", b"name/data/7"), "no member 'data/0'"),
        (lambda data: data.replace(b"PK\3\4", b"PK\3\5"), "not where it should be"),
    ],
)
def test_damage(tmp_path, damage, message):
    (tmp_path / "f").write_bytes(damage(wide(MEMBERS)))
    with pytest.raises(CheckpointError, match=message):
        opened(tmp_path / "f").span("data/0")


def test_numbers_that_lead_outside(tmp_path):
    data = bytearray(wide(MEMBERS))
    entry = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1)
    for size, offset, message in [
        (8, 1 << 60, "lies outside"),
        (1 << 60, 0, "not where it should be"),
        (10_000, 0, "not where it should be"),
    ]:
        changed = bytes(data).replace(struct.pack("<QQ", 8, 8), struct.pack("<QQ", size, size))
        at = changed.index(struct.pack("<QQ", size, size), entry)
        changed = changed[: at + 16] + struct.pack("<Q", offset) + changed[at + 24 :]
        (tmp_path / "f").write_bytes(changed)
        with pytest.raises(CheckpointError, match=message):
            opened(tmp_path / "f").span("data/0")


def test_compressed_members_are_not_unpacked(tmp_path):
    bomb = save_members(tmp_path / "f", {"name/data.pkl": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"member 'data.pkl' is compressed"):
        opened(bomb).content("data.pkl", 10**8)


def test_a_member_that_is_too_large(tmp_path):
    archive = opened(save_members(tmp_path / "f", MEMBERS))
    with pytest.raises(CheckpointError, match=r"member 'data/0' takes 8 bytes; at most 7 are read"):
        archive.content("data/0", 7)


def test_files_of_other_kinds(tmp_path):
    (tmp_path / "lfs").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")
    with pytest.raises(CheckpointError, match=r"Git LFS pointer(?s:.*)git lfs pull"):
        opened(tmp_path / "lfs")
    torch = pytest.importorskip("torch")
    torch.save({"w": torch.zeros(2)}, tmp_path / "old", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"saved by torch before 1\.6"):
        opened(tmp_path / "old")
