import pytest

from rlmerge.checkpoint import read_header
from rlmerge.errors import CheckpointError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 4976698672\n",
            "Git LFS pointer(?s:.*)git lfs pull",
        ),
        (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"\n <HTML><body>404</body></html>", "is a web page"),
        (b"1234567890", "claims a header of"),
        (b"", "is truncated"),
    ],
)
def test_what_stands_where_weights_should(tmp_path, content, message):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_header(tmp_path / "model.safetensors")
