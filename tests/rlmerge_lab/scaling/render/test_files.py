"""What an output directory holds."""

import csv
import json

import pytest

from rlmerge.errors import RequestError
from rlmerge_lab.scaling.render.files import write


def test_figures_tables_and_result(outcomes, tmp_path):
    written = write(outcomes["memory"], tmp_path / "new" / "dir")
    names = {path.name for path in written}
    assert names == {"memory.json", "table-4.csv", "table-4-models.csv", "figure-6.png", "figure-6.svg"}
    assert (tmp_path / "new/dir/figure-6.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "new/dir/figure-6.svg").read_bytes()
    with (tmp_path / "new/dir/table-4.csv").open() as file:
        assert [row[0] for row in csv.reader(file)] == ["size", "3B", "7B", "13B", "70B", "405B"]
    assert json.loads((tmp_path / "new/dir/memory.json").read_text())["result"]["agents"] == 3


def test_a_file_in_the_way_is_named(outcomes, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(RequestError, match="cannot write") as refusal:
        write(outcomes["memory"], tmp_path / "taken")
    assert "taken" in str(refusal.value.where)
