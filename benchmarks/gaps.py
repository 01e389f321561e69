"""What gaps in the teachers' knowledge cost, on the digits: specialists, missing answers, labels.

    python benchmarks/gaps.py specialists --seeds 0 1 2 3 4
    python benchmarks/gaps.py missing
    python benchmarks/gaps.py labels
    python benchmarks/gaps.py harm

``specialists``: experts that declare to know 0-4 and 5-9 only, against the same experts whose
other classes are given no probability, and against the recipe's, which have seen a few images of
the others. ``missing``: half of all teachers' answers removed at random, without and
with ``prior.discount``. ``labels``: 20, 50 and 100
labels beside 500 and more unlabelled images, against labels only and against pseudo-labels, the
most probable class of the teachers' stacked pool. ``harm``: the third teacher, the best of them,
names the next class with all its confidence (``lies``), or says anything (``noise``); or every
fifth label, of calibration too, is another class (``wrong``). Beside the student stands the
ensemble on the same pool.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402

from mtbkd.app.config.run import RunConfig, build_config  # noqa: E402
from mtbkd.app.recipes import digits
from mtbkd.app.run import stages  # noqa: E402
from mtbkd.app.run.baselines import baselines, modes_as_samples, rival_name  # noqa: E402
from mtbkd.app.run.calibration import calibrated  # noqa: E402
from mtbkd.app.run.scoring import SCORINGS, pool_of  # noqa: E402
from mtbkd.app.run.scoring_shared import Rival  # noqa: E402
from mtbkd.inference.modes import find_modes  # noqa: E402
from mtbkd.prior.mixture import Prior  # noqa: E402
from mtbkd.student.student import widened  # noqa: E402
from mtbkd.training import training_set as examples  # noqa: E402

Case = tuple[str | None, tuple[str, ...]]
"""A scenario of the recipe and what else is set."""

STUDIES: dict[str, tuple[Case, ...]] = {
    "specialists": (("padded", ()), ("declared", ()), (None, ())),
    "missing": ((None, ()), ("half", ()), ("half", ("prior.discount=6",))),
    "labels": (("20 labels", ()), ("50 labels", ()), (None, ())),
    "harm": (("lies", ()), ("noise", ()), ("wrong", ())),
}
HARMS = ("lies", "noise", "wrong")
KEYS = ("accuracy", "nll", "ece")


def pseudo(config: RunConfig, task, teachers, posterior) -> dict[str, float]:
    """Students on the labels, and elsewhere on the pool's most probable class."""
    train = task.train
    pool = pool_of(teachers.at(train.ids), posterior.weighting, None, train.inputs)
    labels = torch.where(train.labels >= 0, train.labels, pool["probs"].argmax(1))
    student = posterior.student
    data = examples(student, replace(train, labels=labels), teachers, posterior.weighting)
    best: tuple[float, dict[str, float]] = (-np.inf, {})
    for widening in (1.0, 4.0):
        its = widened(student, widening)
        modes = find_modes(
            its,
            data,
            Prior(power=0.0),
            config.map,
            n_chains=config.chains,
            seed=config.seed,
        )
        rival = Rival(its, modes_as_samples(its, modes))
        held, test = (
            SCORINGS[part.family].draws(rival, part, None) for part in (task.calibration, task.test)
        )
        best = max(best, (-held["nll"], test), key=lambda pair: pair[0])
    return best[1]


def harmed(harm: str | None, task, teachers, seed: int):
    """The task and its teachers with a lie, with noise or with wrong labels in them."""
    generator = torch.Generator().manual_seed(seed)
    values = teachers.values.clone()
    if harm == "lies":
        values[2] = values[2].roll(1, -1)
    if harm == "noise":
        noise = 3 * torch.randn(values[2].shape, generator=generator)
        values[2] = noise.log_softmax(-1)

    def spoilt(data):
        wrong = data.known & (torch.rand(len(data), generator=generator) < 0.2)
        other = torch.randint(1, len(data.classes), (len(data),), generator=generator)
        moved = (data.labels + other) % len(data.classes)
        return replace(data, labels=torch.where(wrong, moved, data.labels))

    if harm == "wrong":
        task = replace(task, train=spoilt(task.train), calibration=spoilt(task.calibration))
    return task, replace(teachers, values=values)


def measure(case: Case, seed: int, study: str) -> dict[str, dict[str, float]]:
    """Scores of the student, and of what it is compared with, on one seed."""
    scenario, settings = case
    harm = scenario if scenario in HARMS else None
    scenario = None if harm else scenario
    asked = [f"seed={seed}", *settings] + ([f"scenario={scenario}"] if scenario else [])
    config = build_config(digits.RECIPE.defaults, asked)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        task = stages.load(digits.RECIPE, config, out)
        teachers, _ = stages.teach(digits.RECIPE, config, task, out)
        task, teachers = harmed(harm, task, teachers, seed)
        posterior = stages.learn(digits.RECIPE, config, task, teachers, out, None)
        posterior, _ = calibrated(config, task, teachers, posterior, out)
        own = Rival(posterior.student, posterior.samples)
        scoring = SCORINGS[task.test.family]
        found = {"student": scoring.draws(own, task.test, None)}
        if harm:
            name = rival_name(posterior.weighting)
            others = baselines(config, task, teachers, posterior, out, None)
            found[name] = scoring.draws(others[name], task.test, None)
        if study == "labels":
            others = baselines(config, task, teachers, posterior, out, None)
            found["labels only"] = scoring.draws(others["labels only"], task.test, None)
            found["pseudo-labels"] = pseudo(config, task, teachers, posterior)
    return found


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    asked = parser.parse_args()
    for case in STUDIES[asked.study]:
        title = " ".join([case[0] or "recipe", *case[1]])
        runs = [measure(case, seed, asked.study) for seed in asked.seeds]
        for name in runs[0]:
            values = np.array([[run[name][key] for key in KEYS] for run in runs])
            mean = ", ".join(f"{k} {v:.3f}" for k, v in zip(KEYS, values.mean(0), strict=True))
            each = " ".join(f"{v:.3f}" for v in values[:, 0])
            print(f"{title:24} {name:28} {mean}   accuracies {each}", flush=True)


if __name__ == "__main__":
    main()
