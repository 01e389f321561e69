"""Every benchmark runs, at sizes that say nothing about speed or quality."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from serving import SOURCES
from shipped import ship

from mtbkd.app.config.run import build_config
from mtbkd.app.recipes import find_recipe
from mtbkd.app.run.commands import distill
from mtbkd.inference import modes

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent / "benchmarks"
SHORT = [
    "map.epochs=2", "sampler.burn_in=20", "sampler.draws=4", "sampler.thinning=2", "chains=2",
    "student.hidden=[4]", "prior.power=1", "prior.discount=0", "baselines=fast",
]  # fmt: skip
SETS = [part for setting in SHORT for part in ("--set", setting)]
ONE_SEED = ["--seeds", "0"]
OUT = ["--out", "runs"]
PARTS = {"synthetic_methods", "synthetic_figures"}
"""Modules that other benchmarks use."""


def shorter(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recipe that it runs is a short one, of the same defaults."""
    build = module.build_config
    monkeypatch.setattr(
        module, "build_config", lambda defaults, asked=(): build(defaults, [*asked, *SHORT])
    )


def constants(**values: Any) -> Callable[[ModuleType, pytest.MonkeyPatch], None]:
    def change(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)

    return change


def in_this_process(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `scale` asks of children, who would not see these sizes."""
    constants(TOP_ROWS=200, TOP_CLASSES=2000, TOP_BATCH=4, ROUNDS=3)(module, monkeypatch)
    monkeypatch.setattr(modes, "find_modes", modes.find_modes)  # which it replaces for good

    def child(*arguments: str) -> dict[str, Any]:
        told = io.StringIO()
        with contextlib.redirect_stdout(told), monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["scale.py", *arguments])
            module.main()
        return json.loads(told.getvalue() or "{}")

    monkeypatch.setattr(module, "child", child)


def few_splits(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few calibration sets for a short run."""
    shorter(module, monkeypatch)
    constants(SPLITS=3)(module, monkeypatch)


def a_run(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it looks at: a short run of several labels."""
    distill(build_config(find_recipe("overlay").defaults, SHORT), Path("runs/one"))


def one_case(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of each study, in short runs with every baseline."""
    studies = {name: cases[1:2] for name, cases in module.STUDIES.items()}
    constants(STUDIES=studies)(module, monkeypatch)
    build = module.build_config
    short = [*SHORT, "baselines=all"]
    monkeypatch.setattr(
        module, "build_config", lambda defaults, asked=(): build(defaults, [*asked, *short])
    )


def few_draws(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of NUTS, in a short run."""
    shorter(module, monkeypatch)
    constants(CHAINS=2, CHUNK=2, IMAGES=10)(module, monkeypatch)


def a_language_model(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny one, which knows hardly any word of the news, and some news."""
    from tiny_language import write_language_model

    write_language_model(Path("model"))
    Path("text").mkdir()
    news = [f"the world cup {i} a b\t{topic}" for i in range(5) for topic in module.CLASSES]
    Path("text", module.FILES[0]).write_text("\n".join(news) + "\n")
    monkeypatch.setenv("MTBKD_DATA", ".")
    monkeypatch.setattr(module, "TEXTS", (("World",), ("Sports",), ("vote",), ("Yes",)))


def unchanged(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pass


def a_server(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to serve, one start, and the server to be found."""
    ship(Path("shipped"))
    monkeypatch.setenv("PYTHONPATH", str(SOURCES))
    monkeypatch.setattr(module, "STARTS", 1)


CASES: dict[str, tuple[str, list[str], Callable[..., None], str]] = {
    "backbones": ("backbones", ["--proteins", "4"], unchanged, "largest difference"),
    "causes": ("causes", ["digits", *ONE_SEED, *OUT], shorter, "the student's entropy"),
    "csghmc": ("csghmc", [], constants(N_CHAINS=4, N_UPDATES=60, BURN_IN=20), "log_gamma"),
    "defer": ("defer", ["digits", *ONE_SEED], few_splits, "student less rival"),
    "specialists": ("gaps", ["specialists", *ONE_SEED], one_case, "declared"),
    "missing": ("gaps", ["missing", *ONE_SEED], one_case, "half"),
    "harm": ("gaps", ["harm", *ONE_SEED], shorter, "ensemble on the"),
    "labels": ("gaps", ["labels", *ONE_SEED], one_case, "pseudo-labels"),
    "draws": ("draws", ["runs/one"], a_run, "with all 8 draws"),
    "export": ("export", ["heads", "--sizes", "4", "3", "2", "--draws", "3"],
               constants(SECONDS=0.01), "3 draws of a head 4-3-2 against one"),
    "how_long": ("how_long", [], constants(EXAMPLES=(100,), HIDDEN=(4,), _SECONDS=0.05),
                 "| 100 | 4 |"),
    "language": ("language", ["model", "--rows", "4"], a_language_model, "scores differ by"),
    "networks": ("networks", ["--quick"], unchanged, "ratio"),
    "kills": ("kills", ["--kills", "8"], constants(SETTINGS=SETS),
              "as those of an undisturbed one"),
    "nuts": ("nuts", ["--seconds", "0.2", "--warm-up", "5"], few_draws, "| sghmc |"),
    "outside": ("outside", ["digits"],
                constants(LOOKS=((8, "blurred"),), EPOCHS=3, STEPS=10, OUTSIDERS=30),
                "| silhouettes |"),
    "proteins": ("proteins", ["deeploc", *ONE_SEED, *SETS, *OUT], unchanged, "1 - max"),
    "recipes": ("recipes", ["overlay", *ONE_SEED, *SETS, *OUT], unchanged, "worst ece"),
    "serve": ("serve", ["shipped", "--seconds", "0.2"], a_server, "statuses {'200': 40}"),
    "sampling": ("sampling", [], constants(ROUNDS=3, STEPS=2), "of a step"),
    "rows": ("scale", ["rows", "--many", "4000", "--few", "2500", "--repeats", "1"],
             in_this_process, "float16"),
    "classes": ("scale", ["classes"], in_this_process, "value and slope"),
    "strangers": ("strangers", ["--tasks", "small", "--budget", "4 s"], unchanged, "| small |"),
    "synthetic": ("synthetic", ["--scenarios", "one", "--replications", "2", *OUT],
                  unchanged, "single-teacher BKD"),
    "teach": ("teach", [], constants(ROWS=1000, ROUNDS=2), "median ratio"),
    "texts": ("texts", ["--texts", "2000", "--threads", "1"], unchanged, "rows/s"),
    "trust": ("trust", ["--tasks", "thick/source", "blur/class", "--labels", "20", *ONE_SEED],
              constants(EPOCHS=10), "| blur/class | 20 |"),
}  # fmt: skip


def test_none_is_forgotten():
    assert {path.stem for path in FOLDER.glob("*.py")} == {c[0] for c in CASES.values()} | PARTS


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")  # so short a run is warned of, rightly
def test_it_runs(name, monkeypatch, tmp_path, capfd, request):
    module_name, arguments, prepare, told = CASES[name]
    if module_name in ("backbones", "proteins"):
        request.getfixturevalue("data_folder")
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(module_name)
    monkeypatch.setattr(sys, "argv", [f"{module_name}.py", *arguments])
    prepare(module, monkeypatch)
    module.main()
    assert told in capfd.readouterr().out
