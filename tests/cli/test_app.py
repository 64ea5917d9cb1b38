import json
import resource
import subprocess
import sys

import pytest

from rlmerge.cli.app import VERBS


def test_help_names_every_verb_and_the_exit_codes(rlmerge):
    for arguments in ((), ("--help",), ("-h",)):
        done = rlmerge(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert all(f"  {verb} " in done.stdout for verb in VERBS)
        assert "Exit codes" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(rlmerge, verb):
    done = rlmerge(verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"rlmerge {verb}" in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["merge", "--help"], ["--version"], ["mrege"]])
def test_help_and_mistakes_import_nothing_heavy(arguments):
    code = (
        "import sys\nfrom rlmerge.cli.app import run\n"
        f"run({arguments!r})\n"
        "heavy = {'numpy', 'numba', 'llvmlite', 'torch', 'rich', 'yaml', 'xxhash'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_help_is_instant(rlmerge):
    """0.15 s is what feels instant; the best of several runs, in processor time, on whatever machine this is."""

    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        rlmerge("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime

    assert min(seconds() for _ in range(5)) < 0.15


def test_version(rlmerge):
    from rlmerge import __version__

    assert rlmerge("--version").stdout == f"rlmerge, version {__version__}\n"


def test_a_mistyped_verb(rlmerge):
    done = rlmerge("mrege", "recipe.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no verb 'mrege'. Did you mean 'merge'?\n  See rlmerge --help.\n"


def test_a_mistyped_option_as_json_on_stdout(rlmerge):
    done = rlmerge("merge", "--memry", "2GB", "--format", "json")
    assert (done.returncode, done.stderr) == (2, "")
    assert "--memory" in json.loads(done.stdout)["error"]["message"]


def test_a_reader_that_goes_away_is_no_failure(tmp_path):
    script = "from rlmerge.cli import main; main()"
    command = f'"{sys.executable}" -c "{script}" methods ram; echo "exit $?" >&2'
    with subprocess.Popen(
        ["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == "exit 0\n"
