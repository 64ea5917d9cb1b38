import json
import os
import re
import subprocess
import sys

import pytest

from rlmerge.cli.app import VERBS

STUDIES = ("lab", "scaling")
"""Verbs that the package's second half adds by entry points, as a package of someone else's would."""


@pytest.fixture
def packages(tmp_path):
    """Installs packages: `packages(name, content, "verb = name:attribute")`; the PYTHONPATH that has them."""

    def install(name, content, *points):
        (tmp_path / f"{name}.py").write_text(content)
        metadata = tmp_path / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("\n".join(["[rlmerge.commands]", *points, ""]))
        return os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    return install


def test_help_names_every_verb_and_the_exit_codes(rlmerge):
    for arguments in ((), ("--help",), ("-h",)):
        done = rlmerge(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert all(f"  {verb} " in done.stdout for verb in (*VERBS, *STUDIES))
        assert "Exit codes" in done.stdout


@pytest.mark.parametrize("verb", (*VERBS, *STUDIES))
def test_every_verb_has_help(rlmerge, verb):
    done = rlmerge(verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"rlmerge {verb}" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["merge", "--help"], ["lab", "--help"], ["scaling", "--help"], ["--version"], ["mrege"]],
)
def test_help_and_mistakes_import_nothing_heavy(arguments):
    code = (
        "import sys\nfrom rlmerge.cli.app import run\n"
        f"run({arguments!r})\n"
        "heavy = {'numpy', 'llvmlite', 'torch', 'scipy', 'rich', 'yaml', 'xxhash'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_help_loads_nothing_but_the_command_line():
    """What keeps it instant: of this package the rooms that parse and print, and of the others click alone."""
    code = (
        "import sys\nbefore = set(sys.modules)\nfrom rlmerge.cli.app import run\n"
        "run(['--help'])\nprint(*sorted(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = set(done.stderr.split())
    packages = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert packages == {"rlmerge", "rlmerge_lab", "click"}
    assert {name for name in loaded if name.startswith("rlmerge_lab.")} == {"rlmerge_lab.commands"}
    rooms = {name.split(".")[1] for name in loaded if name.startswith("rlmerge.")}
    assert rooms <= {"_version", "cli", "errors", "frozen", "jsondata", "text"}


def test_version(rlmerge):
    from rlmerge import __version__

    assert rlmerge("--version").stdout == f"rlmerge, version {__version__}\n"


def test_a_mistyped_verb(rlmerge):
    done = rlmerge("mrege", "recipe.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no verb 'mrege'. Did you mean 'merge'?\n  See rlmerge --help.\n"


def test_another_package_adds_a_verb(rlmerge, packages):
    content = 'import click\n@click.command()\ndef hello():\n    """Say hello.\n\n    More."""\n    print(\'hi\')\n'
    path = packages(
        "greeter", content + "def merge(): raise SystemExit(3)\n", "hello=greeter:hello", "plan=greeter:merge"
    )
    done = rlmerge("--help", PYTHONPATH=path)
    assert re.search(r"^  hello +Say hello\.$", done.stdout, re.M) and "More" not in done.stdout
    assert rlmerge("hello", PYTHONPATH=path).stdout == "hi\n"
    assert "Did you mean 'hello'" in rlmerge("helo", PYTHONPATH=path).stderr
    # A verb of ours is never taken over.
    assert "RECIPE.yaml" in rlmerge("plan", "--help", PYTHONPATH=path).stdout


@pytest.mark.parametrize(
    ("content", "kind"), [("import no_such_module", "ModuleNotFoundError"), ("raise SystemExit(7)", "SystemExit")]
)
def test_a_broken_package_breaks_its_own_verb_alone(rlmerge, packages, content, kind):
    path = packages("broken", content, "crash=broken:command")
    done = rlmerge("--help", PYTHONPATH=path)
    assert done.returncode == 0 and f"(cannot be loaded: {kind})" in done.stdout
    assert all(f"  {verb} " in done.stdout for verb in (*VERBS, *STUDIES))
    assert rlmerge("methods", "ram", PYTHONPATH=path).returncode == 0
    done = rlmerge("crash", PYTHONPATH=path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: package 'broken': its verb 'crash' cannot be loaded ({kind}: ")


def test_an_entry_point_that_is_no_verb_is_said_so(rlmerge, packages):
    path = packages("odd", "def number():\n    return 7\n", "odd=odd:number")
    assert "odd:number gives no click command" in rlmerge("odd", PYTHONPATH=path).stderr


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
