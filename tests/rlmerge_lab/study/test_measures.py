import json

from rlmerge_lab.study.measures import text_prompts
from support.laboratory import ExampleLab


def test_beginnings_are_of_text_that_no_model_was_trained_on(tmp_path):
    lab = ExampleLab(tmp_path)
    assert text_prompts(lab, 4) == ()
    (tmp_path / "words").mkdir()
    rows = [("train", "a"), ("test", "b"), ("dev", "c"), ("test", "b"), ("test", "d"), ("test", "e")]
    lines = (json.dumps({"split": split, "text": f"{prompt} …", "prompt": prompt}) for split, prompt in rows)
    (tmp_path / "words" / "text.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert text_prompts(lab, 2) == ("b", "d")
    assert text_prompts(lab, 9) == ("b", "d", "e")
    assert text_prompts(lab, 0) == ()
