import pytest
import yaml
from markdown_it import MarkdownIt

from rlmerge.report.card import model_card

EXPERT = {"name": "runs/math/", "changed": 1000, "survived": 875, "erased": 125, "requested": 0.5, "realised": 0.4375}
RESULT = {
    "method": "ties",
    "status": "exact",
    "experts": [EXPERT],
    "changed": 1000,
    "survived": 875,
    "warnings": ["rounding erased a lot"],
    "details": {},
}


def card(**changes):
    given = {"models": ["base", "math", "base"], "paper": "a paper", "recipe": "merge_method: ties\n", "version": "9"}
    return model_card(RESULT | changes.pop("result", {}), **(given | {"license": "mit"} | changes))


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_front_matter_is_what_the_hub_reads():
    assert front_matter(card()) == {
        "base_model": ["base", "math"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "rlmerge", "ties"],
        "license": "mit",
    }


def test_an_unknown_license_is_left_out_and_said():
    text = card(license=None)
    assert "license" not in front_matter(text) and "The license is not stated here" in text


def test_the_body_says_what_survived_in_numbers():
    text = card()
    assert "87.5% of the coordinates that any expert changed" in text
    assert "| math | 1,000 | 87.5% | 12.5% | 0.500 | 0.438 |" in text
    assert "- rounding erased a lot" in text and "```yaml\nmerge_method: ties\n```" in text


def test_without_a_base_nothing_is_said_of_survival():
    assert "What survived" not in card(result={"experts": []})


def test_an_expert_without_changes_has_no_shares():
    still = EXPERT | {"changed": 0, "survived": 0, "erased": 0, "requested": None, "realised": None}
    assert "| math | 0 | – | – | – | – |" in card(result={"experts": [still]})


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "![i](http://evil/x.png)<script>",
    "a|b\n\n# head\n\n<script>",
    "```\n<script>",
    "---\nlicense: mit\n---",
    "\x1b]0;pwned\x07\u202e\ud800",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_and_warnings_are_text_and_nothing_else(name):
    detail = {"label": f"share of {name}", "value": 0.5, "range": (0.25, 0.75)}
    result = {"experts": [EXPERT | {"name": name}], "warnings": [f"{name} is odd"], "details": [detail]}
    text = card(result=result, models=[name], recipe=f"models:\n- {name}", license=name)
    text.encode()
    _, matter, body = text.split("---\n", 2)
    assert all(part.isprintable() for part in text.split("\n"))
    assert yaml.safe_load(matter)["license"] == yaml.safe_load(matter)["base_model"][0]
    found = MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)
    inside = [child for token in found for child in token.children or ()]
    assert {token.type for token in [*found, *inside]}.isdisjoint({"html_block", "html_inline", "image", "link_open"})
    assert [token.tag for token in found if token.type == "heading_open"] == ["h1", "h2", "h2", "h2", "h2"]
    assert sum(token.type == "td_open" for token in found) == 6 + 3
