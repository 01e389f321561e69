"""Data from a known truth p*(y | x), with teachers that are real fits of their own samples.

Where the truth is known one can ask whether credible intervals for ``p*(y | x)`` contain it as
often as they say. `benchmarks/synthetic.py` asks that many times; docs/synthetic.md tells what
came out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, softmax

from mtbkd.app.config.run import RunConfig
from mtbkd.app.recipes.base import Costs, Recipe, Task
from mtbkd.app.recipes.common import divided, network, reader
from mtbkd.data import make_dataset
from mtbkd.outputs.aligned import TeacherOutputs, align, make_table
from mtbkd.types import Floats, Report, quiet

CLASSES = ("red", "green", "blue")
_INPUTS, _SPREAD, _CURVATURE = 4, 0.8, 0.5
_CALIBRATION, _TEST = 100, 300
_PENALTY = 0.1  # of the teachers' squared coefficients: what 0.1 is beside the rows
_WRONG_SHARPNESS, _NOISE = 3.0, 1.5

Situation = Literal["alike", "specialists", "shared", "reused", "wrong", "noise"]


@dataclass(frozen=True)
class Scenario:
    """What is known, to whom.

    Attributes:
        summary: One line.
        kind: ``alike``: every teacher fits its own sample. ``specialists``: each knows one part of
            the space and is silent elsewhere. ``shared``: all fit the same sample, half of it
            each. ``reused``: they fit the labels that the student has. ``wrong``: the last teacher
            believes in another truth, and too firmly. ``noise``: the last teacher's outputs do not
            depend on the example.
        n_teachers: K.
        rows: Labelled examples that each teacher is trained on.
        transfer: Examples that the student learns from.
        labelled: How many of them are labelled.
        curved: Whether the truth's logits have squares and products beside linear terms.
    """

    summary: str
    kind: Situation = "alike"
    n_teachers: int = 3
    rows: int = 200
    transfer: int = 300
    labelled: int = 60
    curved: bool = False

    @property
    def evidence(self) -> int:
        """Labelled examples that the honest teachers are worth together.

        A fit of d columns to n random rows has the covariance of ``n - d - 1`` observations, for
        ``E[inv(X'X)] = inv(S) / (n - d - 1)`` (mean of an inverse Wishart matrix). Fits of random
        halves of the same rows have the covariance of fits of all rows.
        """
        columns = len(_coefficients(np.random.default_rng(0), self))
        one, k = self.rows - columns - 1, self.n_teachers
        if self.kind == "shared":
            half = self.rows // 2 - columns - 1
            return round(1 / (1 / (k * half) + (1 - 1 / k) / one))
        return one * (k - (self.kind in ("wrong", "noise")))


SCENARIOS = {
    "alike": Scenario("three honest teachers, each with its own sample"),
    "one": Scenario("one honest teacher", n_teachers=1),
    "two": Scenario("two honest teachers", n_teachers=2),
    "five": Scenario("five honest teachers", n_teachers=5),
    "ten": Scenario("ten honest teachers", n_teachers=10),
    "few": Scenario("few examples to learn from", transfer=80, labelled=20),
    "many": Scenario("many examples to learn from", transfer=1200, labelled=200),
    "specialists": Scenario("each teacher knows a third of the space", kind="specialists"),
    "shared": Scenario("teachers that were trained on the same rows", kind="shared"),
    "reused": Scenario(
        "one teacher, trained on the labels that the student has",
        kind="reused",
        n_teachers=1,
        labelled=200,
    ),
    "wrong": Scenario("one of three teachers is wrong and over-confident", kind="wrong"),
    "noise": Scenario("one of three teachers is noise", kind="noise"),
    "curved": Scenario("the truth is curved", curved=True),
}


class World(NamedTuple):
    """One data set.

    Attributes:
        inputs: Transfer, calibration and test examples, one after the other, shape (example, 4).
        truth: p*(y | x), shape (example, class).
        labels: Drawn from it, shape (example,); -1 where the student is not told.
        told: What each teacher says, shape (teacher, example, class).
        mask: Where it says something, shape (teacher, example).
        sizes: Examples in each of the three splits.
    """

    inputs: Floats
    truth: Floats
    labels: NDArray[np.int64]
    told: Floats
    mask: NDArray[np.bool_]
    sizes: tuple[int, int, int]


def make_world(scenario: Scenario, seed: int, n_test: int = _TEST) -> World:
    """Draw a truth, its teachers and the examples."""
    chance = np.random.default_rng([seed, 7])
    truth = _coefficients(chance, scenario)
    sizes = (scenario.transfer, _CALIBRATION, n_test)
    inputs = chance.normal(size=(sum(sizes), _INPUTS))
    probs = _probs(inputs, truth, scenario)
    labels = _draw(probs, chance)
    labels[scenario.labelled : scenario.transfer] = -1
    told, mask = [], []
    known = slice(scenario.labelled)
    common = chance.normal(size=(scenario.rows, _INPUTS))
    common_labels = _draw(_probs(common, truth, scenario), chance)
    edges = ndtri(np.linspace(0, 1, scenario.n_teachers + 1)[1:-1])
    for k in range(scenario.n_teachers):
        last = k == scenario.n_teachers - 1
        rows = chance.normal(size=(scenario.rows, _INPUTS))
        knows = np.ones(len(inputs), dtype=bool)
        if scenario.kind == "specialists":
            pool = chance.normal(size=(scenario.n_teachers * scenario.rows * 3, _INPUTS))
            rows = pool[np.searchsorted(edges, pool[:, 0]) == k][: scenario.rows]
            knows = np.searchsorted(edges, inputs[:, 0]) == k
        own = _draw(_probs(rows, truth, scenario), chance)
        if scenario.kind == "shared":
            half = chance.permutation(scenario.rows)[: scenario.rows // 2]
            rows, own = common[half], common_labels[half]
        if scenario.kind == "reused":
            rows, own = inputs[known], labels[known]
        said = _fit(rows, own, inputs, scenario)
        if scenario.kind == "wrong" and last:
            said = _probs(inputs, _WRONG_SHARPNESS * _coefficients(chance, scenario), scenario)
        if scenario.kind == "noise" and last:
            said = softmax(_NOISE * chance.normal(size=said.shape), axis=1)
        told.append(said)
        mask.append(knows)
    return World(
        inputs=inputs,
        truth=probs,
        labels=labels,
        told=np.stack(told),
        mask=np.stack(mask),
        sizes=sizes,
    )


def _basis(inputs: Floats, scenario: Scenario) -> Floats:
    """The terms that the truth is linear in."""
    terms = [inputs]
    if scenario.curved:
        terms += [(inputs**2 - 1) * _CURVATURE, inputs[:, :1] * inputs[:, 1:2]]
    return np.concatenate(terms, 1)


def _coefficients(chance: np.random.Generator, scenario: Scenario) -> Floats:
    """A truth at random: intercepts in the last row, shape (term + 1, class)."""
    n_terms = _basis(np.zeros((1, _INPUTS)), scenario).shape[1]
    return _SPREAD * chance.normal(size=(n_terms + 1, len(CLASSES)))


def _probs(inputs: Floats, coefficients: Floats, scenario: Scenario) -> Floats:
    return softmax(_basis(inputs, scenario) @ coefficients[:-1] + coefficients[-1], axis=1)


def _draw(probs: Floats, chance: np.random.Generator) -> NDArray[np.int64]:
    return (chance.random((len(probs), 1)) > probs.cumsum(1)[:, :-1]).sum(1)


def _fit(rows: Floats, labels: NDArray[np.int64], inputs: Floats, scenario: Scenario) -> Floats:
    """Multinomial logistic regression on the truth's own terms: what an honest teacher says."""
    from sklearn.linear_model import LogisticRegression

    model: Any = LogisticRegression(C=1 / _PENALTY, max_iter=1000)
    model.fit(_basis(rows, scenario), labels)
    probs = np.full((len(inputs), len(CLASSES)), 1e-7)
    probs[:, model.classes_] = model.predict_proba(_basis(inputs, scenario))
    return probs / probs.sum(1, keepdims=True)


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """Draw the data set of a scenario."""
    world = make_world(_scenario(config), config.seed)
    ids = [f"point-{i:04d}" for i in range(len(world.inputs))]
    everything = make_dataset(
        world.inputs.astype(np.float32), labels=world.labels, classes=CLASSES, ids=ids
    )
    edges = np.cumsum((0, *world.sizes))
    train, calibration, test = (
        everything.subset(np.arange(start, stop))
        for start, stop in zip(edges[:-1], edges[1:], strict=True)
    )
    first_test = int(edges[2])

    def drawn(row: int) -> str:
        i = first_test + row
        x = ", ".join(f"{v:.2f}" for v in world.inputs[i])
        p = ", ".join(f"{c} {v:.2f}" for c, v in zip(CLASSES, world.truth[i], strict=True))
        return f"<code>x = ({x})<br>p* = {p}</code>"

    return Task(
        name="synthetic",
        train=train,
        calibration=calibration,
        test=test,
        teacher_data=world,
        drawn=drawn,
    )


def teach(config: RunConfig, task: Task, report: Report = quiet) -> tuple[TeacherOutputs, Costs]:
    """What the teachers say, already fitted; a specialist is silent outside its part."""
    world: World = task.teacher_data
    scenario = _scenario(config)
    tables, costs, fresh = [], {}, scenario.kind != "reused"
    for k, (said, knows) in enumerate(zip(world.told, world.mask, strict=True)):
        odd = scenario.kind in ("wrong", "noise") and k == scenario.n_teachers - 1
        name = f"{scenario.kind if odd else 'teacher'} {k + 1}"
        ids = [i for i, known in zip(task.ids, knows, strict=True) if known]
        tables.append(
            make_table(name, said[knows], kind="probs", ids=ids, classes=CLASSES, held_out=fresh)
        )
        n_terms = _basis(world.inputs[:1], scenario).shape[1] + 1
        costs[name] = {"parameters": float(n_terms * len(CLASSES))}
    return align(tables, task.ids, CLASSES, missing="mask"), costs


def _scenario(config: RunConfig) -> Scenario:
    return SCENARIOS[config.scenario or "alike"]


RECIPE = Recipe(
    name="synthetic",
    summary="A known truth, and teachers fitted to samples of it; set `scenario`.",
    needs=f"nothing; scenarios: {', '.join(SCENARIOS)}",
    defaults={
        "recipe": "synthetic",
        "scenario": "alike",
        "prior": {"concentration": 1.0, "evidence": "disagreement"},
        "student": {"hidden": [], "weight_scale": 4.0},
        "map": {"epochs": 100},
        "sampler": {"burn_in": 1000, "draws": 100, "thinning": 50, "batch_size": 400},
    },
    load=load,
    teach=teach,
    network=network,
    read=reader(_INPUTS, "points"),
    before=divided(f"{_INPUTS} coordinates"),
    scenarios=tuple(SCENARIOS),
)
