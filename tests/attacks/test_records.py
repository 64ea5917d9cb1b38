"""Manifests, journals, locks, recipes and cards that are almost right: an answer or an error of ours."""

import random
from collections import Counter

from support.attacks import reading, records

COUNT = 1000


def counted(check, attacks):
    rng = random.Random(0)
    return Counter(check(attacks(rng)) for _ in range(COUNT))


def test_manifests(tmp_path):
    content, check = reading.manifest_reader(tmp_path)
    seen = counted(check, lambda rng: records.as_json(rng, content))
    assert min(seen[word] for word in ("ok", "problems", "refused")) > COUNT / 100, seen


def test_journals(tmp_path):
    seen = counted(reading.journal_reader(tmp_path), lambda rng: records.as_journal(rng, records.JOURNAL))
    assert min(seen[word] for word in ("none", "0 entries", "1 entries", "3 entries")) > COUNT / 100, seen


def test_recipes_and_locks():
    seen = counted(reading.recipe_reader, records.recipe)
    assert min(seen[word] for word in ("read", "refused", "no text")) > COUNT / 100, seen


def test_cards(tmp_path):
    matter = {"license": "mit", "tags": ["a"], "base_model": ["x/y"], "date": "2024-01-01", "n": {"license": "no"}}
    seen = counted(
        reading.card_reader(tmp_path), lambda rng: b"---\n" + records.as_yaml(rng, matter) + b"---\n# Card\n"
    )
    assert min(seen[word] for word in ("none", "a license")) > COUNT / 100, seen
