"""What is imported when: help does without torch, a prediction without what it does not need."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mtbkd
from mtbkd.app.config.run import build_config
from mtbkd.app.recipes import find_recipe
from mtbkd.app.run import commands

TINY = (
    *("map.epochs=1", "sampler.burn_in=2", "sampler.draws=2", "sampler.thinning=1"),
    *("chains=1", "student.hidden=[]", "sampler.batch_size=100"),
)
AFTER = """
import atexit, sys
from mtbkd.app.cli import main
atexit.register(lambda: print("imported:", *sys.modules))
main()
"""


def imported(*arguments: object) -> set[str]:
    """Modules that a process of this command has imported."""
    command = [sys.executable, "-c", AFTER, *map(str, arguments)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(out.rpartition("imported:")[2].split())


@pytest.fixture(scope="module")
def distilled(tmp_path_factory) -> Path:
    """A run of digits that can predict."""
    out = tmp_path_factory.mktemp("start") / "run"
    commands.distill(build_config(find_recipe("digits").defaults, TINY), out)
    return out


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("data", "--help")])
def test_help_needs_no_torch(arguments):
    modules = imported(*arguments)
    assert "mtbkd.app.cli" in modules
    assert not modules & {"torch", "numpy", "yaml", "sklearn", "scipy"}


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_a_prediction_imports_nothing_that_it_does_not_need(distilled, tmp_path, suffix):
    source = tmp_path / f"one{suffix}"
    if suffix == ".npy":
        np.save(source, np.zeros((1, 64)))
    else:
        source.write_text(",".join(f"p{i}" for i in range(64)) + "\n" + ",".join(["0"] * 64) + "\n")
    modules = imported("predict", distilled, source, "--out", tmp_path / "answer.parquet")
    assert "mtbkd.predictive" in modules
    assert (tmp_path / "answer.parquet").exists()
    unused = {
        *("sklearn", "scipy.stats", "scipy.special", "matplotlib", "arviz_stats", "transformers"),
        *("jinja2", "pandas", "pooch", "requests"),
    }
    assert not modules & unused
    recipes = {name for name in modules if name.startswith("mtbkd.app.recipes.")}
    needed = ("base", "common", "digits")
    assert recipes <= {f"mtbkd.app.recipes.{name}" for name in needed}


def test_every_public_name_is_there_and_typed():
    tree = ast.parse(inspect.getsource(mtbkd))
    typed = {n.asname for i in ast.walk(tree) if isinstance(i, ast.ImportFrom) for n in i.names}
    public = typed - {None}
    assert len(public) == 19
    assert public == set(mtbkd.__all__) <= set(dir(mtbkd))
    for name in public:
        assert getattr(mtbkd, name) is not None
    assert callable(mtbkd.distill)
    assert mtbkd.teachers.label.__module__ == "mtbkd.teachers.labelling.label"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mtbkd.nonsense  # noqa: B018
