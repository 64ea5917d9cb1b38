import fnmatch
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlmerge.checkpoint import open_checkpoint
from rlmerge.checkpoint.hub import PATTERNS, fetch, parse_id
from rlmerge.checkpoint.side_files import is_wanted
from rlmerge.errors import CheckpointError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("org/name", ("org/name", None)),
        ("Qwen/Qwen2.5-0.5B@main", ("Qwen/Qwen2.5-0.5B", "main")),
        ("org/name@refs/pr/3", ("org/name", "refs/pr/3")),
        ("name", None),
        ("./name", None),
        ("~/name", None),
        ("/org/name", None),
        ("../org/name", None),
        ("a/b/c", ("a/b/c", None)),
        ("org/name@", None),
        ("org/na me", None),
    ],
)
def test_parse_id(reference, expected):
    assert parse_id(reference) == expected


def test_without_huggingface_hub_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"org/absent: no such directory(?s:.*)pip install 'rlmerge\[hub\]'"):
        open_checkpoint("org/absent")


@pytest.fixture
def hub(tmp_path, monkeypatch, write_tensors):
    """huggingface_hub, offline, with one model in its cache."""
    library = pytest.importorskip("huggingface_hub")
    constants = pytest.importorskip("huggingface_hub.constants")
    cache = tmp_path / "hub"
    repository = cache / "models--org--name"
    snapshot, blobs = repository / "snapshots" / COMMIT, repository / "blobs"
    for folder in (snapshot, blobs, repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    write_tensors(blobs / "aa", {"w": [1, 2]})
    (blobs / "bb").write_text('{"model_type": "llama"}')
    (snapshot / "model.safetensors").symlink_to("../../blobs/aa")
    (snapshot / "config.json").symlink_to("../../blobs/bb")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    return library


@pytest.mark.parametrize(
    ("reference", "revision"), [("org/name", None), ("org/name@main", None), ("org/name", "main"), ("org/name", COMMIT)]
)
def test_a_cached_model_opens_offline(hub, reference, revision):
    model = open_checkpoint(reference, revision=revision)
    assert model.reference == reference
    assert model.revision == COMMIT
    assert list(model.tensors) == ["w"]
    assert model.config == {"model_type": "llama"}
    assert [path.name for path in model.side_files] == ["config.json"]


@pytest.mark.parametrize("length", [7, 12, 39])
def test_a_commit_may_be_cut_short(hub, length):
    model = open_checkpoint(f"org/name@{COMMIT[:length]}")
    assert model.revision == COMMIT


@pytest.mark.parametrize("start", [COMMIT[:6], "fffffff"])
def test_a_commit_that_is_too_short_or_not_there(hub, start):
    with pytest.raises(CheckpointError, match="not in the Hub cache"):
        open_checkpoint(f"org/name@{start}")


def test_a_short_commit_is_looked_up_on_the_hub(hub, monkeypatch):
    class Api:
        def list_repo_commits(self, repository):
            assert repository == "org/name"
            return [SimpleNamespace(commit_id="f" * 40), SimpleNamespace(commit_id="e" * 40)]

    asked = []
    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "snapshot_download", lambda _, revision, **more: asked.append(revision) or "/nowhere")
    fetch("org/name", "eeeeeeee")
    assert set(asked) == {"e" * 40}


def test_a_folder_of_a_repository(hub, tmp_path, write_tensors):
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / COMMIT
    (snapshot / "step-10" / "hf").mkdir(parents=True)
    write_tensors(snapshot / "step-10" / "hf" / "model.safetensors", {"inner": [3]})
    model = open_checkpoint("org/name/step-10/hf@main")
    assert (list(model.tensors), model.revision) == (["inner"], COMMIT)
    with pytest.raises(CheckpointError, match="has no folder 'step-20'"):
        open_checkpoint("org/name/step-20")


def test_only_what_a_folder_holds_is_downloaded(hub, monkeypatch, tmp_path):
    asked = []
    (tmp_path / "snapshot" / "sub").mkdir(parents=True)
    (tmp_path / "snapshot" / "sub" / "model.safetensors").touch()
    monkeypatch.setattr(
        hub,
        "snapshot_download",
        lambda *_, allow_patterns, **more: asked.append(allow_patterns) or tmp_path / "snapshot",
    )
    assert fetch("org/name/sub", None) == (tmp_path / "snapshot" / "sub", "snapshot")
    assert asked == [[f"sub/{pattern}" for pattern in PATTERNS]]


@pytest.mark.parametrize("text", ["org/name/../other", "org/name//x", "org/name/", "/org/name", "org/.name", "name"])
def test_what_is_no_id(text):
    assert parse_id(text) is None


def test_a_model_that_is_not_cached(hub):
    with pytest.raises(
        CheckpointError, match=r"not in the Hub cache(?s:.*)hf download org/other --revision v2"
    ) as caught:
        open_checkpoint("org/other@v2")
    assert caught.value.where == "org/other@v2"


def test_a_local_directory_counts_more_than_the_hub(hub, write_tensors):
    Path("org/name").mkdir(parents=True)
    write_tensors(Path("org/name/model.safetensors"), {"local": [1]})
    assert list(open_checkpoint("org/name").tensors) == ["local"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", r"is gated(?s:.*)huggingface\.co/org/name"),
        ("RepositoryNotFoundError", "neither a directory here nor a repository on the Hub"),
        ("RevisionNotFoundError", "has no revision 'v9'"),
        (None, r"the Hub download failed \(connection reset\)"),
    ],
)
def test_what_the_hub_answers_is_explained(hub, monkeypatch, error, message):
    kind = getattr(hub.errors, error) if error else ConnectionResetError

    def refuse(*_: object, **__: object) -> str:
        # The Hub's errors take the HTTP response, which nothing here looks at.
        raise kind.__new__(kind) if error else kind("connection reset")

    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint("org/name@v9")


def test_what_a_model_needs_is_downloaded():
    names = [
        "model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.model.v3",
        "chat_template.jinja", "additional_chat_templates/rag.jinja", "qwen.tiktoken", "source.spm", "bpe.codes",
        "merges.txt", "LICENSE", "LICENSE-MODEL", "Notice.txt", "USE_POLICY.md", "README.md", "modeling_my.py",
        "1_Pooling/config.json",
    ]  # fmt: skip
    matched = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in PATTERNS)]
    assert matched == names
    others = ["pytorch_model.bin", "model.gguf", "flax_model.msgpack", "events.out.tfevents.1", "image.png"]
    assert not [name for name in others if any(fnmatch.fnmatch(name, pattern) for pattern in PATTERNS)]
    assert all(is_wanted(name) for name in ("LICENSE-MODEL", "USE_POLICY.md", "bpe.codes", "tokenizer.model.v3"))


@pytest.mark.parametrize(
    ("stored", "downloads"),
    [(("model.safetensors", "pytorch_model.bin"), 1), (("pytorch_model.bin", "training_args.bin"), 2)],
)
def test_pickled_weights_are_downloaded_where_there_are_no_others(hub, monkeypatch, tmp_path, stored, downloads):
    calls = []
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()

    def download(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        calls.append(allow_patterns)
        for name in stored:
            if any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (snapshot / name).touch()
        return str(snapshot)

    monkeypatch.setattr(hub, "snapshot_download", download)
    fetch("org/name", None)
    assert len(calls) == downloads
    assert [path.name for path in snapshot.iterdir()] == [stored[0]]
