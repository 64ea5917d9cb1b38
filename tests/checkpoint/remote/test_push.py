"""Output directories sent to a Hub on loopback: checked first, nothing else with them, one commit."""

import hashlib
import json

import pytest

pytest.importorskip("huggingface_hub")

from huggingface_hub import constants

import rlmerge
from rlmerge.checkpoint.remote.push import prepare, push
from rlmerge.cli.app import run
from rlmerge.errors import CheckpointError, RequestError, RunError
from support import hub_writing
from support.family import recipe, tree
from support.hub_writing import writable_hub
from support.models import write_model
from support.stores import Faults, use_hub

LICENSES = {"base": "apache-2.0", "e0": "mit", "e1": "llama3"}


def unwatched(count):
    pass


@pytest.fixture
def root(tmp_path):
    return tmp_path / "hub"


@pytest.fixture
def private():
    return {}


@pytest.fixture
def faults(root, private, monkeypatch):
    found = Faults()
    root.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with writable_hub(root, found, private) as endpoint:
        use_hub(monkeypatch, endpoint)
        yield found


@pytest.fixture
def family(tmp_path):
    """Three models whose cards state a license each."""
    for number, (name, license) in enumerate(LICENSES.items()):
        tensors = {"model.embed_tokens.weight": [[1.0 + number, 2.0], [3.0, 4.0]], "model.norm.weight": [1.0, number]}
        write_model(tmp_path / name, tensors)
        (tmp_path / name / "README.md").write_text(f"---\nlicense: {license}\n---\n# {name}\n")
    return tmp_path


@pytest.fixture
def merged(family):
    rlmerge.merge(recipe(family, "ties", count=2), family / "out", shard_size=16)
    return family / "out"


def sent(faults):
    """Requests that change a Hub."""
    return [path for verb, path, _ in faults.log if verb in ("POST", "PUT") and "validate-yaml" not in path]


def test_the_repository_holds_the_directory(merged, faults, root, private):
    (merged / "notes.txt").write_text("mine")
    (merged / "extra.safetensors").write_bytes(b"x")
    plan = prepare(merged, "org/merged", private=True, advance=unwatched)
    assert sent(faults) == [] and not plan.exists and plan.commit is None
    assert plan.license == "llama3", "the strictest of the three"
    done = push(plan, unwatched)
    held = {name: data for name, data in tree(root / "org" / "merged").items() if name != ".gitattributes"}
    assert held == {name: data for name, data in tree(merged).items() if name not in ("notes.txt", "extra.safetensors")}
    assert private == {"org/merged": True} and len(done.commit) == 40
    assert sum("/commit/" in path for path in sent(faults)) == 1
    assert rlmerge.verify("hf://org/merged").ok
    sums = {file.name: file.sha256 for file in plan.files}
    assert sums["MANIFEST.json"] == hashlib.sha256((merged / "MANIFEST.json").read_bytes()).hexdigest()


def test_what_has_arrived_is_not_sent_again(merged, faults, root):
    """The commit fails; weights that are there by then stay, and the branch is as it was."""
    plan = prepare(merged, "org/merged", advance=unwatched)
    faults.plan = lambda verb, path, number: "400" if "/commit/" in path else None
    with pytest.raises(RunError, match="the Hub refused or failed") as error:
        push(plan, unwatched)
    assert "hf_secret" not in str(error.value) and list(tree(root / "org" / "merged")) == [".gitattributes"]
    faults.plan = lambda *_: None
    uploads = [path for path in sent(faults) if path.startswith("/lfs/")]
    assert len(uploads) == len(list(merged.glob("*.safetensors"))) > 1
    faults.log.clear()
    push(prepare(merged, "org/merged", advance=unwatched), unwatched)
    assert not [path for path in sent(faults) if path.startswith("/lfs/")]
    assert (root / "org" / "merged" / "MANIFEST.json").exists()


def test_a_second_push_of_the_same_changes_nothing(merged, faults):
    push(prepare(merged, "org/merged", advance=unwatched), unwatched)
    plan = prepare(merged, "org/merged", advance=unwatched)
    assert plan.exists and plan.removed == ()


def test_files_of_a_repository_are_not_lost_unasked(merged, faults, root):
    (root / "org" / "merged").mkdir(parents=True)
    (root / "org" / "merged" / "old.safetensors").write_bytes(b"old")
    (root / "org" / "merged" / "config.json").write_text("{}")
    with pytest.raises(RequestError, match="holds files that the push would replace or remove") as error:
        prepare(merged, "org/merged", advance=unwatched)
    assert "--force" in error.value.hint
    plan = prepare(merged, "org/merged", force=True, advance=unwatched)
    assert plan.removed == ("old.safetensors",)
    push(plan, unwatched)
    assert not (root / "org" / "merged" / "old.safetensors").exists()
    assert rlmerge.verify("hf://org/merged").ok


def test_a_branch_is_made(merged, faults):
    plan = prepare(merged, "org/merged", revision="v1", advance=unwatched)
    push(plan, unwatched)
    assert "/api/models/org/merged/branch/v1" in sent(faults)
    assert any(path.endswith("/commit/v1") for path in sent(faults))


def test_a_directory_that_is_not_what_its_manifest_says(merged, faults):
    (merged / "config.json").write_text("{}")
    with pytest.raises(RequestError, match=r"is not what its manifest says: config\.json"):
        prepare(merged, "org/merged", advance=unwatched)
    with pytest.raises(CheckpointError, match=r"has no MANIFEST\.json"):
        prepare(merged.parent / "base", "org/merged", advance=unwatched)
    assert faults.log == []


NO_NAMES = ["merged", "org/a/b", "-x/y", "org/name@v1", "hf://org/name", "org/..", "org/a..b", "org/a--b", "org/a.git"]


@pytest.mark.parametrize("name", [*NO_NAMES, "org/é", "org/a\nb", "org/" + "x" * 93])
def test_what_is_no_name_of_a_repository(merged, faults, name):
    with pytest.raises(RequestError, match="is not the name of a Hub repository"):
        prepare(merged, name, advance=unwatched)


@pytest.mark.parametrize("revision", ["", "../main", "a b", "-x", "a//b", "v1/", "a\n", "@{u}"])
def test_what_is_no_name_of_a_branch(merged, faults, revision):
    with pytest.raises(RequestError, match="is not the name of a branch"):
        prepare(merged, "org/merged", revision=revision, advance=unwatched)
    assert faults.log == []


def test_a_public_repository_does_not_get_what_is_private(merged, faults, root, private):
    (root / "org" / "merged").mkdir(parents=True)
    private["org/merged"] = False
    with pytest.raises(RequestError, match="exists and is public"):
        prepare(merged, "org/merged", private=True, advance=unwatched)
    with pytest.raises(RequestError, match="exists and is public"):
        prepare(merged, "org/merged", private=True, revision="v1", advance=unwatched)
    private["org/merged"] = True
    assert prepare(merged, "org/merged", private=True, advance=unwatched).exists
    assert sent(faults) == []


def test_a_branch_that_moves_meanwhile_is_left_as_it_is(merged, faults, root, monkeypatch):
    """Somebody commits between our look and our commit."""
    push(prepare(merged, "org/merged", advance=unwatched), unwatched)
    plan = prepare(merged, "org/merged", advance=unwatched)
    monkeypatch.setattr(hub_writing, "commit_of", lambda repository: "f" * 40)
    (root / "org" / "merged" / "notes.md").write_text("theirs")
    with pytest.raises(RunError, match="somebody else has changed the branch meanwhile"):
        push(plan, unwatched)
    assert (root / "org" / "merged" / "notes.md").read_text() == "theirs"


def test_a_file_that_changes_after_the_check_is_not_sent(merged, faults):
    plan = prepare(merged, "org/merged", advance=unwatched)
    (merged / "config.json").write_text("{}")
    with pytest.raises(RequestError, match="has changed since it was compared") as error:
        push(plan, unwatched)
    assert error.value.where == str(merged / "config.json") and sent(faults) == []


@pytest.fixture
def unlicensed(family):
    """A merge with a model whose card states no license."""
    (family / "e0" / "README.md").unlink()
    rlmerge.merge(recipe(family, "ties", count=2), family / "out", shard_size=16)
    return family / "out"


def test_an_unknown_license_is_refused_or_given(unlicensed, faults, root):
    before = tree(unlicensed)
    with pytest.raises(RequestError, match="states no license") as error:
        prepare(unlicensed, "org/merged", advance=unwatched)
    assert "--license" in error.value.hint
    plan = prepare(unlicensed, "org/merged", license="cc-by-nc-4.0", advance=unwatched)
    assert plan.unchecked == (str(unlicensed.parent / "e0"),)
    push(plan, unwatched)
    card = (root / "org" / "merged" / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-nc-4.0\nbase_model:\n")
    assert tree(unlicensed) == before, "what is here stays as it is"
    assert rlmerge.verify("hf://org/merged").ok, "the manifest there knows the card"


@pytest.mark.parametrize(
    ("license", "reason"),
    [("mit", "e1, of which it was merged, is under llama3"), ("mitt", "unknown license 'mitt'")],
)
def test_a_license_that_cannot_be(unlicensed, faults, license, reason):
    """e1 is under llama3, which is stricter than MIT."""
    with pytest.raises(RequestError, match=reason):
        prepare(unlicensed, "org/merged", license=license, advance=unwatched)


def test_a_source_may_have_changed_its_license(merged, faults):
    (merged.parent / "base" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    with pytest.raises(RequestError, match="base, of which it was merged, is under cc-by-nc-4"):
        prepare(merged, "org/merged", advance=unwatched)
    with pytest.raises(RequestError, match="the card states the license llama3, not apache"):
        prepare(merged, "org/merged", license="apache-2.0", advance=unwatched)


def test_no_access(merged, faults, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(RunError, match="the Hub denies access") as error:
        push(prepare(merged, "org/merged", advance=unwatched), unwatched)
    assert "hf auth login" in error.value.hint and "hf_wrong" not in str(error.value)


def test_the_command(merged, faults, root, capsys):
    (merged / "notes.txt").write_text("mine")
    assert run(["push", str(merged), "org/merged", "--private", "--dry-run", "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "hf://org/merged@main (repository new, private)" in told and "Nothing was sent" in told
    assert "model-00001-of-00002.safetensors" in told and "notes.txt" not in told
    assert sent(faults) == [] and not (root / "org").exists()
    assert run(["push", str(merged), "org/merged", "--quiet", "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dry_run"], told["license"], len(told["commit"])) == (False, "llama3", 40)
    assert run(["push", str(merged), "org/merged@x", "--quiet"]) == 2
