import gzip
import json

import pytest
from click.testing import CliRunner

from rlmerge.errors import RequestError
from rlmerge_lab.cli.lab import command
from support.command_line import run_rlmerge
from support.studies import second_edition

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
    assert found["judgement"]["schema"] == "rlmerge.lab.verdicts/2"
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


def test_studies_are_compared(tmp_path):
    for name, weights in (("small", 10**5), ("large", 10**7)):
        (tmp_path / name / "report").mkdir(parents=True)
        rows = second_edition(3, parameters=weights)
        (tmp_path / name / "report" / "study.json").write_text(json.dumps(rows))
    asked = ["compare", str(tmp_path / "large"), str(tmp_path / "small"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(command, [*asked, "--format", "json"])
    found = json.loads(done.stdout)
    assert [study["weights"] for study in found["studies"]] == [10**5, 10**7]
    assert {line["key"] for line in found["lines"]} >= {"entrywise", "own-arithmetic", "own-drift"}
    page = (tmp_path / "out" / "README.md").read_text()
    assert "rlmerge lab compare large small -o DIR" in page
    assert "no trend seen" in CliRunner().invoke(command, asked).stdout


def test_comparisons_that_are_wrong(tmp_path):
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_text(json.dumps(second_edition(3)))
    other.write_text('{"schema": "rlmerge.tune/1"}')
    for arguments, says in (
        ([one], "two studies or more"),
        ([one, other], "is no study of a laboratory"),
        ([one, tmp_path / "absent"], "holds no study"),
    ):
        done = CliRunner().invoke(command, ["compare", *map(str, arguments), "-o", str(tmp_path / "out")])
        assert isinstance(done.exception, RequestError) and says in str(done.exception)
    assert not (tmp_path / "out").exists()
