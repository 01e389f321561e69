"""Which answers are given alone: promises that hold, and the rest asked."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
from own_data import (
    CLASSES,
    NEAREST,
    call,
    points,
    write_config,
    write_csv,
    write_examples,
    write_module,
    write_table,
)
from scipy.special import expit
from sklearn.datasets import load_digits

from mtbkd.app.folder import _written
from mtbkd.app.run.asking import Asking, asked_outputs, rows_to_ask
from mtbkd.app.run.new_inputs import read_new
from mtbkd.app.run.policy import Goal, Policy
from mtbkd.explain.defer import (
    MAX_PROBABILITY,
    cheapest,
    choose_score,
    coverage_curve,
    risk_area,
    threshold,
    thresholds_by_class,
    voice,
)
from mtbkd.files import read_sealed, save_sealed
from mtbkd.outputs.store import load_outputs
from mtbkd.types import InputError


def population(offset: float, seed: int, n: int = 50_000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of being right of students that are more or less good, and whether they are."""
    chance = np.random.default_rng(seed)
    probs = expit(chance.normal(offset, 2.5, n)).clip(0.3)
    return probs, chance.random(n) < probs


def broken(target: float, n: int, offset: float, n_trials: int) -> tuple[float, float]:
    """How often the promise is broken, and the mean share answered alone."""
    probs, right = population(offset, 0)
    chance = np.random.default_rng([n, round(100 * target)])
    found = []
    for _ in range(n_trials):
        some = chance.integers(len(probs), size=n)
        above = threshold(probs[some], right[some], target, expected=probs[some])
        alone = probs > above
        found.append((alone.any() and right[alone].mean() < target, alone.mean()))
    return tuple(np.mean(found, axis=0))


def test_the_promise_holds():
    rate, share = broken(0.9, 300, 3.0, 200)
    assert rate <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)
    assert share > 0.7  # of 0.9 that are possible


@pytest.mark.slow
@pytest.mark.parametrize("offset", [1.5, 3.0, 4.5])
@pytest.mark.parametrize("n", [100, 300, 1000])
@pytest.mark.parametrize("target", [0.9, 0.95, 0.97])
def test_the_promise_holds_everywhere(target, n, offset):
    assert broken(target, n, offset, 200)[0] <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_so_many_right_answers_are_needed():
    """0.95 ** 59 is below 0.05, and 0.95 ** 58 is not."""
    scores, sure = np.linspace(1, 0.5, 59), np.full(59, 0.99)
    right = np.ones(59, bool)
    assert threshold(scores, right, 0.95, expected=sure) == -np.inf
    assert threshold(scores[:58], right[:58], 0.95, expected=sure[:58]) == np.inf


def test_the_threshold_is_the_score_of_the_first_that_is_asked():
    scores = np.linspace(1, 0, 100)
    right = np.arange(100) < 70
    above = threshold(scores, right, 0.95, expected=expit(20 * (scores - 0.3)))
    alone = scores > above
    assert above in scores
    assert alone.sum() == 70


def test_equal_scores_stay_together():
    scores = np.repeat([0.9, 0.5], [60, 40])
    right = np.arange(100) < 97  # so that 93 of the first rows would do, were they apart
    above = threshold(scores, right, 0.95, expected=np.repeat([0.999, 0.5], [60, 40]))
    assert above == 0.5
    assert (scores > above).sum() == 60


def test_no_test_ends_within_equal_scores():
    """The first 150 would do, but only 60 of them can be told from others, of which 2 are wrong."""
    scores = np.repeat([0.9, 0.5], [60, 240])
    right = np.arange(300) >= 2
    right[200:] = False
    expected = np.repeat([0.999, 0.3], [150, 150])
    assert threshold(scores, right, 0.95, expected=expected) == np.inf


def test_one_wrong_answer_among_the_surest_does_not_end_it():
    scores, right = np.linspace(1, 0.5, 1000), np.arange(1000) != 10
    assert threshold(scores, right, 0.95, expected=np.full(1000, 0.99)) == -np.inf


def test_a_class_that_is_wrong_is_asked():
    said = np.arange(200) % 2
    right = (said == 0) | (np.arange(200) % 4 == 1)
    scores = np.random.default_rng(0).random(200)
    found = thresholds_by_class(
        scores, right, 0.9, expected=np.full(200, 0.9), said=said, n_classes=2
    )
    assert found.tolist() == [-np.inf, np.inf]


@pytest.mark.parametrize("prices", [(1.0, 20.0), (1.0, 2.0), (5.0, 1.0)])
def test_the_cheapest_is_that_of_all_thresholds(prices):
    chance = np.random.default_rng(1)
    scores = chance.random(80).round(1)
    wrong, asked = chance.random(80) > scores, chance.random(80) < 0.05
    call_price, error = prices

    def cost(above: float) -> float:
        alone = scores > above
        return (call_price * ~alone + error * np.where(alone, wrong, asked)).sum()

    found = cheapest(scores, wrong, asked, *prices)
    assert cost(found) == pytest.approx(min(map(cost, [-np.inf, np.inf, *scores])))


def test_the_better_score_is_chosen_and_its_rows_find_no_threshold():
    probs, right = population(1.5, 2, 800)
    noise = np.random.default_rng(0).random(800)
    name, rest = choose_score({MAX_PROBABILITY: noise, "total": probs}, right)
    assert name == "total"
    assert rest.sum() == 600
    few, all_rows = choose_score({MAX_PROBABILITY: noise[:300], "total": probs[:300]}, right[:300])
    assert few == MAX_PROBABILITY
    assert all_rows.all()


def test_answers_alike_are_in_no_order():
    right = np.array([True, False, True, False])
    assert risk_area(np.ones(4), right) == risk_area(np.ones(4), right[::-1]) == 0.5
    share, accuracy = coverage_curve(np.array([2.0, 1.0, 1.0, 0.0]), right)
    assert share.tolist() == [0.25, 0.75, 1.0]
    assert accuracy == pytest.approx([1, 2 / 3, 0.5])


def test_the_better_voice_counts_more():
    chance = np.random.default_rng(0)
    good, bad = chance.uniform(0.6, 1, 200), chance.uniform(0, 0.6, 200)
    assert voice(good, bad) > 0.95
    assert voice(bad, good) < 0.05
    assert voice(good[:0], bad[:0]) == pytest.approx(0.5)
    assert 0.05 < voice(good[:1], bad[:1]) < 0.95


def test_a_policy_by_class_looks_at_what_is_said():
    policy = Policy(Goal(accuracy=0.9), MAX_PROBABILITY, np.array([-np.inf, 0.5, np.inf]), 0.5)
    alone = policy.alone({MAX_PROBABILITY: np.full(4, 0.5)}, np.array([0, 1, 2, 0]))
    assert alone.tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    "goal",
    [Goal(), Goal(agree=0.9, accuracy=0.9), Goal(agree=1.5), Goal(call=-1.0, error=2.0),
     Goal(call=1.0, error=2.0, per_class=True)],
)  # fmt: skip
def test_what_cannot_be_promised_is_refused(goal):
    with pytest.raises(InputError, match="Expected"):
        goal.check()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of one's own, with a table and code as teachers, and new rows."""
    folder = tmp_path_factory.mktemp("defer")
    write_examples(folder)
    write_table(folder)
    module = write_module(folder, "code_of_defer", NEAREST)
    teachers = {
        "old": {"table": "old.csv", "kind": "probs"},
        "any": {"factory": f"{module}:nearest"},
    }
    config = write_config(folder, teachers, features=["x1", "x2"])
    chance = np.random.default_rng(1)
    places = 3 * np.eye(3, 2)[np.arange(40) % 3] + chance.normal(size=(40, 2))
    rows = [[f"n{i}", *place.round(3).tolist(), f"word{i}"] for i, place in enumerate(places)]
    write_csv(folder / "new.csv", ["id", "x1", "x2", "text"], rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["mtbkd", "distill", str(config), "--out", str(folder / "run")])
        patch.chdir(folder)
        from mtbkd.app import cli

        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert not stop.value.code
    return folder


def test_rows_are_answered_alone_or_asked(made, monkeypatch, capsys):
    monkeypatch.chdir(made)
    code, out, err = call(monkeypatch, capsys, "defer", "run", "--accuracy", "0.6", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["calibration"]["accuracy_alone"] >= 0.6
    assert (made / "run" / "defer.svg").exists()
    assert call(monkeypatch, capsys, "predict", "run", "new.csv", "--out", "all.csv")[0] == 0
    every = pa_csv.read_csv(made / "all.csv")
    above = float(np.median(every["probability"].to_numpy()))
    save_sealed(made / "run" / "defer.json", found_record(made) | {"above": [above]})
    code, out, err = call(
        monkeypatch, capsys, "predict", "run", "new.csv", "--defer", "--out", "alone.csv"
    )
    assert code == 0, err
    assert "20 of 40 rows answered alone" in out
    alone, asked = (pa_csv.read_csv(made / name) for name in ("alone.csv", "ask.csv"))
    assert set(alone["by"].to_pylist()) == {"student"}
    assert min(alone["probability"].to_pylist()) > above
    assert asked.column_names == ["id", "x1", "x2", "text"]
    given = pa_csv.read_csv(made / "new.csv")
    rest = [key not in set(alone["id"].to_pylist()) for key in given["id"].to_pylist()]
    assert asked.equals(given.filter(pa.array(rest)))


def found_record(folder):
    return read_sealed(folder / "run" / "defer.json")


def test_teachers_answer_and_say_so(made, monkeypatch, capsys):
    monkeypatch.chdir(made)
    assert call(monkeypatch, capsys, "defer", "run", "--agree", "0.6")[0] == 0
    rows = [[f"n{i}", *(0.9 * np.eye(3)[0] + 0.1 / 3)] for i in range(10)]
    write_csv(made / "said.csv", ["id", *CLASSES], rows)
    given = ("ask", "run", "new.csv", "--table", "old=said.csv", "--out", "final.parquet")
    code, _, err = call(monkeypatch, capsys, *given)
    assert code == 2
    assert "'any'" in err
    assert "never run" in err
    code, out, err = call(monkeypatch, capsys, *given, "--config", "my.yaml")
    assert code == 0, err
    table = pq.read_table(made / "final.parquet")
    assert table["id"].to_pylist() == [f"n{i}" for i in range(40)]
    assert table["by"].to_pylist()[0] == ["student", "old", "any"]
    assert table["by"].to_pylist()[39] == ["student", "any"]
    assert (made / "run" / "asked").exists()
    assert not any(name.startswith("asked") for name in _written(made / "run"))
    code, _, err = call(monkeypatch, capsys, *given, "--without", "any")
    assert code == 0, err
    table = pq.read_table(made / "final.parquet")
    assert table["by"].to_pylist()[39] == ["student"]
    assert table["prediction"].to_pylist()[39] == table["student"].to_pylist()[39]
    code, _, err = call(monkeypatch, capsys, "ask", "run", "new.csv", "--without", "any")
    assert code == 2
    assert "--table 'old=FILE'" in err


def test_a_changed_policy_is_refused(made, monkeypatch, capsys):
    monkeypatch.chdir(made)
    assert call(monkeypatch, capsys, "defer", "run", "--accuracy", "0.6")[0] == 0
    path = made / "run" / "defer.json"
    text = path.read_text()
    path.write_text(text.replace('"weight": 0.', '"weight": 1.'))
    code, _, err = call(monkeypatch, capsys, "predict", "run", "new.csv", "--defer")
    path.write_text(text)
    assert code == 2
    assert "defer.json" in err


def test_the_same_again_is_the_same(made, monkeypatch, capsys):
    monkeypatch.chdir(made)
    found = []
    for _ in range(2):
        assert call(monkeypatch, capsys, "defer", "run", "--cost", "1", "10")[0] == 0
        found.append([(made / "run" / n).read_bytes() for n in ("defer.json", "defer.svg")])
    assert found[0] == found[1]


FAMILIES = {
    "multilabel": (["t1", "t2"], lambda x: (x[:, :2] > 1).astype(int)),
    "regression": (["t1", "t2"], lambda x: x @ np.array([[1.0, 0.0], [2.0, -1.0]])),
}


def made_of(folder, family, monkeypatch, capsys):
    """A run with another family, and new rows."""
    x, _ = points()
    columns, truth = FAMILIES[family]
    cells = truth(x).tolist()
    rows = [[f"e{i}", *x[i].round(3), *cells[i]] for i in range(len(x))]
    write_csv(folder / "examples.csv", ["id", "x1", "x2", *columns], rows)
    said = [[f"e{i}", *(0.8 * np.array(one) + 0.1)] for i, one in enumerate(cells)]
    write_csv(folder / "old.csv", ["id", *columns], said)
    old = {"table": "old.csv", "kind": "probs" if family == "multilabel" else "mean"}
    if family == "regression":
        old["variance"] = [0.5, 2]
    config = write_config(
        folder, {"old": old}, labels=columns, family=family, features=["x1", "x2"]
    )
    monkeypatch.chdir(folder)
    code, _, err = call(monkeypatch, capsys, "distill", config, "--out", "run")
    assert code == 0, err


def test_several_labels_are_one_answer(tmp_path, monkeypatch, capsys):
    made_of(tmp_path, "multilabel", monkeypatch, capsys)
    code, out, err = call(monkeypatch, capsys, "defer", "run", "--accuracy", "0.4", "--json")
    assert code == 0, err
    part = json.loads(out)["test"]
    assert 0 <= part["accuracy_system"] <= 1
    said = [["e0", 0.9, 0.1], ["e1", 0.1, 0.9]]
    write_csv(tmp_path / "said.csv", ["id", "t1", "t2"], said)
    write_csv(tmp_path / "ask.csv", ["id", "x1", "x2"], [["e0", 3, 0], ["e1", 0, 3]])
    code, _, err = call(
        monkeypatch, capsys, "ask", "run", "ask.csv", "--table", "old=said.csv", "--out", "a.jsonl"
    )
    assert code == 0, err
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines[0]["by"] == ["student", "old"]
    assert [line["labels"] for line in lines] == [["t1"], ["t2"]]
    code, _, err = call(monkeypatch, capsys, "defer", "run", "--accuracy", "0.4", "--per-class")
    assert code == 2
    assert "--per-class" in err


def test_numbers_are_refused(tmp_path, monkeypatch, capsys):
    made_of(tmp_path, "regression", monkeypatch, capsys)
    code, _, err = call(monkeypatch, capsys, "defer", "run", "--accuracy", "0.9")
    assert code == 2
    assert "answers with numbers" in err


@pytest.mark.slow
def test_teachers_of_a_recipe_are_trained_again_to_be_asked(tmp_path, monkeypatch, capsys):
    """They say of a training image what they said of it."""
    monkeypatch.chdir(tmp_path)
    short = [f"--set={one}" for one in ("map.epochs=3", "sampler.burn_in=10", "sampler.draws=6",
                                        "sampler.thinning=2", "chains=2")]  # fmt: skip
    assert call(monkeypatch, capsys, "distill", "digits", "--out", "run", *short)[0] == 0
    assert call(monkeypatch, capsys, "defer", "run", "--accuracy", "0.5")[0] == 0
    images, _ = load_digits(return_X_y=True)
    outputs = load_outputs(tmp_path / "run" / "teachers")
    row = int(outputs.ids[0].removeprefix("digit-"))
    np.save("one.npy", images[[row]])
    new = read_new(tmp_path / "run", tmp_path / "one.npy")
    found = asked_outputs(tmp_path / "run", tmp_path / "one.npy", new, Asking({}))
    assert torch.equal(found.values[:, 0], outputs.values[:, 0])
    code, _, err = call(monkeypatch, capsys, "ask", "run", "one.npy", "--out", "a.csv")
    assert code == 0, err
    assert "network on 60 rows" in (tmp_path / "a.csv").read_text()


@pytest.mark.parametrize("suffix", ["txt", "fasta"])
def test_rows_of_other_files_become_a_table(made, tmp_path, suffix):
    text = "one text\nanother\n" if suffix == "txt" else ">a\nMKV\n>b\nMAC\n"
    (tmp_path / f"new.{suffix}").write_text(text)
    ids = ("1", "2") if suffix == "txt" else ("a", "b")
    found = rows_to_ask(tmp_path / f"new.{suffix}", made / "run", ids, np.array([False, True]))
    assert found.num_rows == 1
    assert found["id"].to_pylist() == [ids[1]]
    assert found.column(1).to_pylist() == ["another" if suffix == "txt" else "MAC"]
