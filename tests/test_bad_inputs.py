"""Generated bad inputs end in exit code 2 and a message, or in a right answer."""

import pytest
from bad_inputs import check, prepare


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("runs"))


def test_a_sample_of_bad_inputs(runs, tmp_path):
    assert check(runs, tmp_path, seed=0, wanted=list(range(0, 1000, 25))) == []


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_hundreds_of_bad_inputs(part, runs, tmp_path):
    assert check(runs, tmp_path, seed=1, wanted=list(range(part * 100, part * 100 + 100))) == []
