import gzip
import json

import pytest

from support.command_line import run_rlmerge

pytest.importorskip("trl")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A laboratory of the profile ci and what `rlmerge lab run` printed on the way."""
    directory = tmp_path_factory.mktemp("run")
    done = run_rlmerge("lab", "run", "-o", "lab", "--profile", "ci", cwd=directory)
    assert done.returncode == 0, done.stderr
    return directory / "lab", done


def test_one_command_trains_studies_and_reports(lab):
    root, done = lab
    assert "train: 15 models" in done.stderr
    assert "seed 0 rl-bf16 steps: trained in" in done.stderr
    for name in ("study.json", "report.html", "README.md"):
        assert (root / "report" / name).stat().st_size > 1000
    study = json.loads((root / "report" / "study.json").read_text())
    assert study["schema"] == "rlmerge.lab.study/1"
    assert study["command"] == "rlmerge lab run -o DIR --profile ci"
    assert {row["arm"] for row in study["experts"]} == {
        "rl", "rl-bf16", "rl-positive", "sft", "sft-high-lr", "rft", "sft-long",
    }  # fmt: skip
    # One seed decides nothing, and the report says so rather than anything about the claims.
    assert "undecided" in done.stdout and "supported" not in done.stdout.replace("not supported", "")
    assert str(root.name) in done.stdout.splitlines()[-1]


def test_run_again_trains_nothing_and_finds_the_same(lab):
    root, first = lab
    again = run_rlmerge("lab", "run", "-o", root, "--profile", "ci", "--quiet")
    assert again.returncode == 0 and again.stderr == ""
    assert again.stdout == first.stdout.replace("lab/report", f"{root}/report")


def test_report_as_json_and_elsewhere(lab, tmp_path):
    root, _ = lab
    study = tmp_path / "study.json.gz"
    study.write_bytes(gzip.compress((root / "report" / "study.json").read_bytes()))
    done = run_rlmerge("lab", "report", study, "-o", tmp_path / "page", "--format", "json")
    found = json.loads(done.stdout)
    assert found["judgement"]["schema"] == "rlmerge.lab.verdicts/1"
    assert {verdict["verdict"] for verdict in found["judgement"]["verdicts"]} == {"undecided here"}
    assert (tmp_path / "page" / "README.md").read_text() == (root / "report" / "README.md").read_text()


def test_requests_that_are_wrong(lab, tmp_path):
    root, _ = lab
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b'{"schema": 1}')[:15])
    for arguments, says in (
        (("report", tmp_path / "cut.json.gz"), "cut.json.gz: holds no study"),
        (("train", "-o", tmp_path / "a", "--profile", "ful"), "Did you mean 'full'?"),
        (("train", "-o", root, "--profile", "quick"), "holds the laboratory of another profile, 'ci'"),
        (("train", "-o", tmp_path / "a", "--profile", "ci", "--model", "gpt2"), "profile 'ci' trains its own base"),
        (("study", tmp_path), "holds no laboratory"),
        (("report", tmp_path), "Run the study first: rlmerge lab study DIR"),
    ):
        done = run_rlmerge("lab", *arguments)
        assert done.returncode == 2 and says in done.stderr, done.stderr
        assert done.stdout == ""
    assert not (tmp_path / "a").exists()
