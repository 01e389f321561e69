"""A configuration that says `own` alone: everything is chosen, within a budget."""

import json

import pytest
import yaml
from own_data import call, write_config, write_examples, write_table

from mtbkd.app.config.run import load_config

TEACHERS = {"old": {"table": "old.csv", "kind": "probs"}}


def write_own_alone(folder, **sections):
    write_examples(folder)
    write_table(folder)
    path = write_config(folder, TEACHERS)
    own = yaml.safe_load(path.read_text())["own"]
    path.write_text(yaml.safe_dump({"own": own, **sections}, sort_keys=False))
    return path


def rounds_in(run):
    return json.loads((run / "rounds.json").read_text())["rounds"]


def test_steps_that_are_given_are_made_and_no_others(tmp_path):
    assert load_config(write_own_alone(tmp_path)).budget == "5 min"
    steps = {"sampler": {"burn_in": 10, "thinning": 2}}
    assert load_config(write_own_alone(tmp_path, **steps)).budget is None
    both = load_config(write_own_alone(tmp_path, **steps, budget="1 min"))
    assert (both.seconds, both.sampler.thinning) == (60.0, 2)
    other = load_config(write_own_alone(tmp_path, sampler={"draws": 20}))
    assert other.budget == "5 min"


@pytest.mark.parametrize("budget", ["soon", "5", "0 min", 7, [1]])
def test_a_budget_is_a_duration(tmp_path, monkeypatch, capsys, budget):
    path = write_own_alone(tmp_path, budget=budget)
    code, _, err = call(monkeypatch, capsys, "run", path, "--out", tmp_path / "run")
    assert code == 2
    assert "Expected `budget` to be a duration with its unit" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_own_alone_runs_and_goes_on(tmp_path, monkeypatch, capsys):
    path, run = write_own_alone(tmp_path, budget="20 s", baselines="none"), tmp_path / "run"
    code, out, err = call(monkeypatch, capsys, "run", path, "--out", run)
    assert code == 0, err
    first = rounds_in(run)
    assert sum(each["seconds"] for each in first) < 20
    for _ in range(2):
        before = rounds_in(run)
        code, out, err = call(monkeypatch, capsys, "run", run, "--more", "30s")
        assert code == 0, err
        assert "report:" in out
        after = rounds_in(run)
        agreed = before[-1]["rhat_95"] <= 1.05
        assert len(after) > len(before) or agreed
        assert after[: len(before)] == before
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["student"]["accuracy"] > 0.5
    spent, stages = metrics["cost"]["cpu_seconds"], (run / "training.json").read_text()
    drawn = [s for name, s in json.loads(stages)["cpu_seconds"].items() if "round" in name]
    assert spent["sampling"] == pytest.approx(sum(drawn), abs=0.01)
    assert "draws of prior" in stages
    code, out, _ = call(monkeypatch, capsys, "run", run)
    assert code == 0


def test_what_cannot_go_on_says_why(tmp_path, monkeypatch, capsys):
    write_examples(tmp_path)
    write_table(tmp_path)
    path, run = write_config(tmp_path, TEACHERS), tmp_path / "run"
    code, _, err = call(monkeypatch, capsys, "run", path, "--out", run, "--more", "soon")
    assert code == 2
    assert "Expected a run with a budget" in err
    assert "Expected --more to be a duration" in err
    path = write_own_alone(tmp_path)
    code, _, err = call(monkeypatch, capsys, "run", path, "--out", run, "--more", "5min")
    assert code == 2
    assert "Expected a finished run" in err
    assert not run.exists()
