"""Every verb is given the same hostile models, and the same places to write to: one message, and nothing is left."""

import os
import shutil
from pathlib import Path

import pytest

from support.attacks.places import MODELS, OUTPUTS, furnish, state

TASKS = ("--tasks", "exact:items.jsonl:t")
PROMPTS = ("--prompts", "{model}=items.jsonl:t", "e1=items.jsonl:t")
TINY = (*TASKS, "--backend", "tiny", "--store", "store")
RECIPE = "merge_method: ties\nbase_model: base\nmodels: [{model}, e1]\nparameters: {{density: 0.5}}\n"
MIXTURE = "base_model: base\ngate_mode: random\nexperts:\n- source_model: {model}\n- source_model: e1\n"

READERS = {
    "merge": ("merge", "--method", "ties", "--base", "base", "{model}", "e1", "-o", "out", "--no-cache", "--quiet"),
    "merge onto": ("merge", "--method", "ties", "--base", "{model}", "e1", "-o", "out", "--no-cache", "--quiet"),
    "merge FILE": ("merge", "recipe.yaml", "-o", "out", "--quiet"),
    "merge what is no recipe": ("merge", "{model}", "-o", "out", "--quiet"),
    "merge a lock": ("merge", "{model}/rlmerge.lock.yaml", "-o", "out", "--quiet"),
    "merge --as adapter": ("merge", "--method", "linear", "--base", "base", "{model}", "-o", "out", "--as", "adapter"),
    "merge vocabularies": ("merge", "union.yaml", "-o", "out", "--quiet"),
    "plan": ("plan", "--method", "ties", "--base", "base", "{model}", "e1"),
    "inspect": ("inspect", "--base", "base", "{model}", "e1", "--quiet"),
    "inspect against": ("inspect", "{model}", "--against", "sound.yaml", "--quiet"),
    "verify": ("verify", "{model}", "--quiet"),
    "convert": ("convert", "{model}", "-o", "out", "--quiet"),
    "convert onto": ("convert", "{model}", "--base", "base", "-o", "out", "--quiet"),
    "delta extract": ("delta", "extract", "{model}", "--base", "base", "-o", "out", "--quiet"),
    "delta extract from": ("delta", "extract", "e1", "--base", "{model}", "-o", "out", "--quiet"),
    "delta apply": ("delta", "apply", "{model}", "--base", "base", "-o", "out", "--quiet"),
    "delta verify": ("delta", "verify", "{model}", "--base", "base", "--quiet"),
    "extract-lora": ("extract-lora", "{model}", "--base", "base", "--rank", "1", "-o", "out", "--quiet"),
    "tokens": ("tokens", "{model}", "e1", "-o", "out", "--quiet"),
    "tokens of": ("tokens", "e1", "{model}", "-o", "out", "--quiet"),
    "moe": ("moe", "moe.yaml", "-o", "out", "--quiet"),
    "moe of what is no file": ("moe", "{model}", "-o", "out", "--quiet"),
    "migrate": ("migrate", "recipe.yaml"),
    "migrate what is no recipe": ("migrate", "{model}"),
    "tune": ("tune", "--base", "base", "{model}", "e1", *TASKS, "-o", "out", "--trials", "1", "--quiet"),
    "tune what is no search": ("tune", "{model}", "-o", "out", "--quiet"),
    "eval": ("eval", "e1", "--base", "base", "--experts", "{model}", *TINY),
    "eval of": (
        "eval",
        "{model}",
        "--base",
        "base",
        "--experts",
        "e1",
        *TASKS,
        "--backend",
        "tiny",
        "--store",
        "store",
    ),
    "calibrate": ("calibrate", "recipe.yaml", *PROMPTS, "-o", "out.yaml", "--quiet"),
    "calibrate what is no recipe": ("calibrate", "{model}", *PROMPTS, "-o", "out.yaml", "--quiet"),
    "sensitivity": ("sensitivity", "--model", "{model}", "--data", "items.jsonl", "-o", "out"),
    "sensitivity on what is no data": ("sensitivity", "--model", "base", "--data", "{model}", "-o", "out"),
}
"""Command lines that read a model; what they write is ``out`` and ``store``."""

WRITERS = {
    "merge": ("merge", "--method", "ties", "--base", "base", "e0", "e1", "--no-cache", "--quiet"),
    "merge --as adapter": ("merge", "--method", "linear", "--base", "base", "e0", "--as", "adapter", "--quiet"),
    "plan": ("plan", "--method", "ties", "--base", "base", "e0", "e1"),
    "inspect": ("inspect", "--base", "base", "e0", "e1", "--quiet"),
    "inspect to JSON": ("inspect", "--base", "base", "e0", "e1", "--quiet", "--json"),
    "convert": ("convert", "e0", "--quiet"),
    "delta extract": ("delta", "extract", "e0", "--base", "base", "--quiet"),
    "delta apply": ("delta", "apply", "delta", "--base", "base", "--quiet"),
    "extract-lora": ("extract-lora", "e0", "--base", "base", "--rank", "1", "--quiet"),
    "tokens": ("tokens", "e0", "e1", "--quiet"),
    "moe": ("moe", "moe.yaml", "--quiet"),
    "migrate": ("migrate", "recipe.yaml"),
    "tune": ("tune", "--base", "base", "e0", "e1", *TASKS, "--trials", "1", "--quiet"),
    "eval": ("eval", "e1", "--base", "base", "--experts", "e0", *TINY),
    "eval to JSON": ("eval", "e1", "--base", "base", "--experts", "e0", *TINY, "--json"),
    "calibrate": ("calibrate", "recipe.yaml", "--prompts", "e0=items.jsonl:t", "e1=items.jsonl:t", "--quiet"),
    "sensitivity": ("sensitivity", "--model", "base", "--data", "items.jsonl"),
}
"""Command lines that write; the name to write to is added with ``-o``, or by itself after a last option."""


@pytest.fixture
def place(family):
    """The models, and what the command lines speak of."""
    write_text(family / "items.jsonl", '{"task": "t", "prompt": "a", "answer": "b", "response": "b"}\n')
    return family


def write_text(file, text):
    file.write_bytes(os.fsencode(text))


def recipes(family, model):
    """The files that name a model rather than be given it."""
    write_text(family / "recipe.yaml", RECIPE.format(model=model))
    write_text(family / "union.yaml", RECIPE.format(model=model) + "tokenizer_source: union\n")
    write_text(family / "sound.yaml", RECIPE.format(model="e0"))
    write_text(family / "moe.yaml", MIXTURE.format(model=model))


def away(*names):
    """What a command that succeeded may have written."""
    for name in names:
        path = Path(name)
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink(True)


@pytest.mark.parametrize("verb", READERS)
def test_hostile_models(place, command, verb):
    recipes(place, "m")
    for kind, spoil in MODELS.items():
        shutil.copytree("e0", "m")
        spoil(Path("m"))
        before = state(place)
        done = command(*(part.format(model="m") for part in READERS[verb]))
        assert done.code == 0 or done.err.count("error:") == 1 or "problems; nothing was written" in done.err, kind
        if done.code == 0:
            away("out", "out.yaml")
        away("store")
        assert state(place) == before, (kind, done.err)
        away("m")


@pytest.mark.parametrize("verb", WRITERS)
def test_places_to_write_to(place, command, monkeypatch, verb):
    recipes(place, "e0")
    if verb == "delta apply":
        assert command("delta", "extract", "e0", "--base", "base", "-o", "delta", "--quiet").code == 0
    furnish(place)
    if not os.geteuid():
        monkeypatch.setattr(os, "access", lambda path, *_, **__: "closed" not in os.fsdecode(path))
    before = state(place)
    for kind, name in OUTPUTS.items():
        line = WRITERS[verb]
        if kind in ("a file", "a dangling link") and verb.startswith(("inspect", "eval")):
            continue  # A report takes the place of an older one, and is written where a link leads.
        done = command(*line, name) if line[-1] == "--json" else command(*line, "-o", name)
        if done.code == 0 and verb != "plan":
            away(name, "new", "absent")
        away("store")
        assert state(place) == before, (kind, done.code, done.err)
