import json
from pathlib import Path

from rlmerge.cli.output import emit_json


def test_json_is_one_valid_object_whatever_the_numbers(capsys):
    emit_json({"nan": float("nan"), "each": (1.5, float("inf")), "out": Path("a"), "text": "τ", 3: None})
    text = capsys.readouterr().out
    assert json.loads(text) == {"nan": None, "each": [1.5, None], "out": "a", "text": "τ", "3": None}
    assert "τ" in text
