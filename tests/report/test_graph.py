"""The stages of a file as a tree, as Mermaid and as SVG."""

import xml.etree.ElementTree as ET

from rlmerge.report.graph import stage_mermaid, stage_svg, stage_tree


def stage(name, base, *experts, method="linear"):
    return {
        "name": name,
        "method": method,
        "base": base,
        "experts": list(experts),
        "bytes_written": 2_000_000,
        "peak_memory": 1_000_000,
    }


STAGES = [stage("both", "org/base", "math", "code", method="ram"), stage("all", "org/base", "both", "<tools>&")]


def test_a_tree_has_the_result_as_its_root():
    assert stage_tree(STAGES) == (
        "all · linear (2 MB, peak 1 MB)\n"
        "├─ base: org/base\n"
        "├─ both · ram (2 MB, peak 1 MB)\n"
        "│  ├─ base: org/base\n"
        "│  ├─ math\n"
        "│  └─ code\n"
        "└─ <tools>&"
    )


def test_a_stage_used_twice_is_drawn_once():
    stages = [stage("a", None, "x"), stage("b", None, "a", "y"), stage("c", None, "a", "b")]
    assert stage_tree(stages).replace(" (2 MB, peak 1 MB)", "") == (
        "c · linear\n├─ a · linear\n│  └─ x\n└─ b · linear\n   ├─ a · linear (see above)\n   └─ y"
    )


def test_mermaid_names_every_model_once():
    shown = stage_mermaid(STAGES).splitlines()
    assert shown[0] == "flowchart LR"
    assert sum("org/base" in line for line in shown) == 1
    assert '  n4["&lt;tools&gt;&amp;"]' in shown
    assert "  n0 -.->|base| n3" in shown and "  n1 --> n3" in shown and "  n3 --> n5" in shown


def test_svg_is_well_formed_and_says_everything():
    root = ET.fromstring(stage_svg(STAGES))
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    # The base is drawn beside each of its two readers.
    assert len(titles) == 7 and "<tools>&" in titles
    arrows = [path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("fill") == "none"]
    assert len(arrows) == 6
    assert sum(path.get("stroke-dasharray") is not None for path in arrows) == 2


def test_control_characters_are_spelled():
    shown = stage_tree([stage("r", None, "a\x1b[31mb")])
    assert "\x1b" not in shown
