"""The comparison: cells that resume, what stress does, and what the tables and figures say."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from own_data import call, write_config, write_examples, write_table

from mtbkd.app.bench import answers, figures, judging, tables
from mtbkd.app.bench.cells import Order, carry_out, missing, read_cell
from mtbkd.app.bench.methods import METHODS, OURS
from mtbkd.app.bench.plan import Wanted, make_plan, read_numbers, seconds_left
from mtbkd.app.bench.run import run_bench
from mtbkd.app.bench.stress import STRESSES, shifted
from mtbkd.app.bench.tasks import TASKS
from mtbkd.app.recipes.base import Task, mlp
from mtbkd.data import make_dataset
from mtbkd.metrics import adaptive_ece
from mtbkd.outputs.aligned import align, make_table
from mtbkd.student.student import make_student
from mtbkd.types import InputError

TINY = (
    "map.epochs=2", "sampler.burn_in=10", "sampler.draws=3", "sampler.thinning=1", "chains=2",
)  # fmt: skip
FEW = ("labels", "pool-8-t", OURS, "ours-modes")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison of a few methods on a small task, and what was told."""
    out, told = tmp_path_factory.mktemp("bench"), []
    wanted = Wanted(tasks=("diabetes",), methods=FEW, seeds=(0, 1), changes=TINY)
    plan = make_plan(wanted, out)
    run_bench(plan, 1, told.append)
    return plan, out, told


def test_every_cell_is_judged_and_stands_in_the_table(compared):
    plan, out, told = compared
    table = pq.read_table(out / "results.parquet").to_pylist()
    tested = [row for row in table if row["on"] == "test"]
    assert {(r["method"], r["seed"]) for r in tested} == {(m, s) for m in FEW for s in (0, 1)}
    assert all(row["cpu_seconds"] > 0 and np.isfinite(row["nll"]) for row in tested)
    assert {row["on"] for row in table} >= {"test", "noise 1", "noise 5"}
    assert told[0].startswith("8 of 8 cells are to be made")
    page = (out / "results.md").read_text()
    for method in FEW:
        assert METHODS[method].summary in page
    assert (out / "cost-diabetes.svg").exists()


def test_a_killed_comparison_goes_on_and_changes_no_other_cell(compared):
    plan, out, _ = compared
    order = plan.orders[0]
    before = {path: path.read_bytes() for path in (out / "cells").rglob("*.json")}
    scores = read_cell(order.cell(OURS))["judged"]
    order.cell(OURS).unlink()
    assert missing(order) == (OURS,)
    assert seconds_left(plan.orders) > 0
    assert carry_out(order) == []
    assert read_cell(order.cell(OURS))["judged"] == scores  # chains are read back
    del before[order.cell(OURS)]
    assert all(path.read_bytes() == data for path, data in before.items())
    assert seconds_left(plan.orders) == 0


def test_cells_of_other_settings_and_changed_ones_are_refused(compared, tmp_path):
    plan, _, _ = compared
    order = plan.orders[1]
    with pytest.raises(InputError, match="Choose another --out"):
        missing(replace(order, changes=(*TINY, "map.epochs=5")))
    path = replace(order, out=tmp_path).cell("labels")
    path.parent.mkdir(parents=True)
    cell = json.loads(order.cell("labels").read_text())
    cell["cost"]["cpu_seconds"] = 0.0
    path.write_text(json.dumps(cell, indent=1) + "\n")
    with pytest.raises(InputError, match=r"labels\.json"):
        missing(replace(order, out=tmp_path))


def test_paired_differences_are_those_of_the_seeds():
    rows = [
        {"method": method, "seed": seed, "nll": nll}
        for method, scores in ((OURS, (1.0, 2.0)), ("labels", (1.5, 2.1)))
        for seed, nll in enumerate(scores)
    ]
    line = tables.table(rows, ["nll"], against=OURS).splitlines()[-1]
    assert line == f"| {METHODS['labels'].summary} | 2 | 0.300 ± 0.200 |"
    assert METHODS[OURS].summary not in line


def small(n=400, n_classes=3):
    chance = np.random.default_rng(0)
    data = make_dataset(
        chance.random((n, 4)),
        labels=chance.integers(n_classes, size=n),
        classes=[str(i) for i in range(n_classes)],
    )
    said = chance.dirichlet(np.ones(n_classes), (3, n))
    outputs = align(
        [
            make_table(f"t{k}", said[k], ids=data.ids, classes=data.classes, kind="probs")
            for k in range(3)
        ],
        data.ids,
        data.classes,
    )
    train, rest = data.subset(range(200)), data.subset(range(200, n))
    task = Task("toy", train, rest, rest, None, lambda _: "")
    return task, outputs


def stressed(name):
    task, teachers = small()
    return task, teachers, *STRESSES[name](task, teachers, torch.Generator().manual_seed(0))


def test_a_liar_names_the_next_class_and_noise_speaks_of_others():
    _, before, _, after = stressed("lies")
    assert after.values[-1].argmax(-1).equal((before.values[-1].argmax(-1) + 1) % 3)
    assert after.values[:-1].equal(before.values[:-1])
    _, before, _, after = stressed("noise")
    same = (after.values[-1] == before.values[-1]).all(-1)
    assert same.float().mean() < 0.05
    assert after.values[-1].exp().sum(0).allclose(before.values[-1].exp().sum(0), rtol=1e-4)


def test_a_fifth_of_the_labels_is_wrong_and_the_test_is_spared():
    before, _, after, _ = stressed("wrong-labels")
    for part in ("train", "calibration"):
        off = getattr(after, part).labels != getattr(before, part).labels
        assert 0.12 < off.float().mean() < 0.28
    assert after.test.labels.equal(before.test.labels)


def test_few_labels_few_rows_and_ten_teachers():
    before, _, after, _ = stressed("20-labels")
    assert (after.train.n_labelled, after.calibration.n_labelled) == (20, 200)
    _, _, after, _ = stressed("10%-rows")
    assert len(after.train) == 20
    assert set(after.train.ids) < set(before.train.ids)
    _, before, _, after = stressed("ten-teachers")
    assert len(set(after.names)) == 10
    assert after.values[:2].equal(before.values[:2])
    assert not any(after.values[k].equal(before.values[k % 2]) for k in range(2, 10))
    _, before, _, after = stressed("half-missing")
    assert 0.4 < after.mask.float().mean() < 0.6


def test_corruption_grows_and_labels_stay():
    data = make_dataset(
        np.random.default_rng(0).random((20, 64)), labels=[0, 1] * 10, classes=["a", "b"]
    )
    found = shifted(data, (8, 8), 0)
    assert len(found) == 16
    for what in ("noise", "blur", "rotation"):
        far = [
            float((found[f"{what} {s}"].inputs - data.inputs).square().sum()) for s in range(1, 6)
        ]
        assert far == sorted(far)
        assert far[0] > 0
    assert all(one.labels.equal(data.labels) for one in found.values())
    assert set(shifted(data, None, 0)) == {f"noise {s}" for s in range(1, 6)}


def test_multiply_adds_are_those_of_the_layers():
    student = make_student(mlp([6, 5, 3]), example=torch.zeros(2, 6))
    assert answers.multiply_adds(student, torch.zeros(1, 6)) == 6 * 5 + 5 * 3


def test_the_share_answered_alone_keeps_ties_together():
    doubts, wrong = np.array([0.1, 0.2, 0.2, 0.9]), np.array([0.0, 0.0, 1.0, 0.0])
    assert judging.answered_alone(doubts, wrong) == 0.25
    assert judging.answered_alone(doubts, np.zeros(4)) == 1.0
    assert judging.answered_alone(doubts, np.ones(4)) == 0.0


def test_adaptive_bins_hold_equally_many():
    chance = np.random.default_rng(0)
    top = chance.uniform(0.5, 1, 30_000)
    probs = np.stack([top, 1 - top], 1)
    right = chance.random(30_000) < top
    assert adaptive_ece(probs, np.where(right, 0, 1)) < 0.01
    sharp = np.where(chance.random(30_000) < top - 0.1, 0, 1)
    assert adaptive_ece(probs, sharp) == pytest.approx(0.1, abs=0.01)


def test_the_critical_difference_is_that_of_the_paper():
    assert figures.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)  # section 3.2.4
    assert figures.critical_difference(5, 30) == pytest.approx(2.728 * np.sqrt(30 / 180), abs=2e-3)


def test_blocks_hold_methods_that_are_everywhere():
    rows = [
        {"task": task, "stress": "none", "method": method, "nll": nll}
        for task, method, nll in (
            ("a", "x", 1.0),
            ("a", "x", 3.0),
            ("a", "y", 1.0),
            ("b", "x", 2.0),
        )
    ]
    names, losses = figures.blocks(rows)
    assert names == ("x",)
    assert losses.tolist() == [[2.0], [2.0]]


def test_sets_are_of_answers_that_did_not_know_their_labels():
    probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    held = answers.Answers(probs, np.zeros(3))
    data = make_dataset(np.zeros((3, 1)), labels=[1, 1, 0], classes=["a", "b"])
    fitted = answers.Fitted(
        answer=lambda _: answers.Answers(probs, np.array([0.1, 0.2, 0.3])), held=held,
        parameters=1, multiply_adds=1,
    )  # fmt: skip
    told = judging.judge(fitted, SimpleNamespace(held=data, units=None), data)
    assert (told["set_coverage"], told["set_size"]) == (1.0, 2.0)


def test_plans_name_what_is_not_known(tmp_path):
    assert {order.task for order in make_plan(Wanted(full=True), tmp_path).orders} == set(TASKS)
    assert len(make_plan(Wanted(), tmp_path).orders) == 4
    for wanted in (Wanted(tasks=("digit",)), Wanted(methods=("our",)), Wanted(stress=("lie",))):
        with pytest.raises(InputError, match="Correct it"):
            make_plan(wanted, tmp_path)
    with pytest.raises(InputError, match="--seeds"):
        read_numbers("1,x")
    with pytest.raises(InputError, match="different names"):
        make_plan(Wanted(tasks=("a/my.yaml", "b/my.yaml")), tmp_path)


def test_the_estimate_counts_what_is_known(tmp_path):
    order = Order("digits", "none", 0, (OURS, "ours-8"), (), tmp_path)
    share = METHODS[OURS].cost + METHODS["ours-8"].cost
    assert seconds_left([order]) == pytest.approx(TASKS["digits"].seconds * share)


@pytest.mark.filterwarnings("ignore")
def test_a_configuration_of_ones_own_is_compared(tmp_path, monkeypatch, capsys):
    write_examples(tmp_path)
    write_table(tmp_path)
    path = write_config(tmp_path, {"old": {"table": "old.csv", "kind": "probs"}})
    out = tmp_path / "bench"
    asked = ("bench", path, "--out", out, "--methods", "pool,ours", "--seeds", "3", "--jobs", "1")
    code, _, told = call(monkeypatch, capsys, *asked)
    assert code == 0
    assert "2 of 2 cells are to be made" in told
    assert METHODS[OURS].summary in (out / "results.md").read_text()
    assert call(monkeypatch, capsys, *asked)[2].startswith("mtbkd: 0 of 2 cells")
    code, _, err = call(monkeypatch, capsys, "bench", "--full", "--quick")
    assert (code, "either --quick or --full" in err) == (2, True)
