import errno
import os

import pytest

from rlmerge.checkpoint.failures import preparing, writing
from rlmerge.errors import RequestError, RunError


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(tmp_path, code):
    with pytest.raises(RunError, match=r"the disk is full\n  Free some space there, .*--resume"), writing(tmp_path):
        raise OSError(code, os.strerror(code))


def test_other_failures_of_a_run(tmp_path):
    with pytest.raises(RunError, match=r"cannot be written \(Input/output error\)") as caught, writing(tmp_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    assert caught.value.where == str(tmp_path)
    assert caught.value.exit_code == 1


def test_failures_before_a_run(tmp_path):
    message = r"cannot be created there \(Not a directory\)"
    with pytest.raises(RequestError, match=message) as caught, preparing(tmp_path):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    assert caught.value.exit_code == 2


def test_other_errors_pass(tmp_path):
    for guard in (writing, preparing):
        with pytest.raises(ZeroDivisionError), guard(tmp_path):
            raise ZeroDivisionError
