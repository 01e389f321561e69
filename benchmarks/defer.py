"""Does the promise of `mtbkd defer` hold, and how much does the student answer alone?

    python benchmarks/defer.py digits --seeds 0 1 2
    python benchmarks/defer.py news

A student is distilled as its recipe says. All further rows, which neither it nor its rival has
seen, are the population: of the digits the 500 test images and the 600 that taught the teachers
(these 500 only for agreement), of the news the 7,600 test rows. 200 times some of them, with
replacement, are the calibration rows; the policy that they find breaks its promise if it does not
hold on the population. So nothing is left to the chance of a small test set. ``splits`` tells
beside it how often the rows that are left of a split without replacement are below the target,
which chance makes more frequent the fewer they are.

The rival is what a careful engineer would build: logistic regression on the student's inputs and
on all labels that the student learned from, its penalty chosen by cross-validation, thresholds on
its largest probability found by the same test. Of the news the third teacher, a frozen encoder, is
left out, so that no model is needed.

The table: the target, calibration rows, share answered alone (mean of 200, and of seeds) by the
student and by its rival, and shares of broken promises of both.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from sklearn.linear_model import LogisticRegressionCV  # noqa: E402

from mtbkd.app.config.run import build_config  # noqa: E402
from mtbkd.app.recipes import digits, news  # noqa: E402
from mtbkd.app.recipes.base import Task  # noqa: E402
from mtbkd.app.recipes.common import ask  # noqa: E402
from mtbkd.app.run import stages  # noqa: E402
from mtbkd.app.run.calibration import calibrated  # noqa: E402
from mtbkd.app.run.scoring import pool_of  # noqa: E402
from mtbkd.explain.causes import find_causes, load_background  # noqa: E402
from mtbkd.explain.defer import choose_score, scores_of, threshold  # noqa: E402
from mtbkd.explain.outside import see  # noqa: E402

TARGETS, SIZES, SPLITS = (0.9, 0.95, 0.97), (100, 300, 1000), 200


class Population(NamedTuple):
    """Who says what of rows that nobody has seen.

    Attributes:
        scores: How sure they are, by name, each (row,); the first is the largest probability.
        right: Whether they are, (row,).
        agrees: Whether they say what the pool says, NaN where the teachers were taught, (row,).
    """

    scores: dict[str, np.ndarray]
    right: np.ndarray
    agrees: np.ndarray


def two_teachers(config, task: Task, report=None):
    """The news' teachers that need no model."""
    lessons = task.teacher_data
    teachers = [news._words(lessons.words), news._characters(lessons.characters)]
    return ask(teachers, task, lessons.asked)


RECIPES = {"digits": digits.RECIPE, "news": replace(news.RECIPE, teach=two_teachers)}


def answered(name: str, seed: int, out: Path) -> tuple[Population, Population]:
    """The student and its rival on the population."""
    recipe = RECIPES[name]
    config = build_config(recipe.defaults, [f"seed={seed}"])
    task = recipe.load(config, out / "features", lambda *_: None)
    teachers, _ = stages.teach(recipe, config, task, out)
    posterior = stages.learn(recipe, config, task, teachers, out, lambda *_: None)
    posterior, _ = calibrated(config, task, teachers, posterior, out)
    inputs, labels = task.test.inputs, task.test.labels.numpy()
    outputs = teachers.at(task.test.ids)
    pool = pool_of(outputs, posterior.weighting, None, inputs)["probs"].numpy().argmax(1)
    if name == "digits":
        taught = task.teacher_data
        inputs = torch.cat([inputs, torch.from_numpy(taught.inputs)])
        labels = np.concatenate([labels, taught.labels])
        pool = np.concatenate([pool, np.full(len(taught.labels), -1)])
    answer = posterior.predict(inputs)
    background = load_background(out / stages.BACKGROUND, config.predict.level)
    seen = see(posterior, posterior.student.features(inputs))
    causes = find_causes(background, seen, answer)
    student = judged(
        scores_of(answer, causes.reliable, causes.flags), answer.probs.argmax(1), labels, pool
    )
    known = task.train.known
    learned = torch.cat([task.train.inputs[known], task.calibration.inputs]).numpy()
    truth = torch.cat([task.train.labels[known], task.calibration.labels]).numpy()
    model = LogisticRegressionCV(
        Cs=np.logspace(-4, 3, 15), cv=5, max_iter=2000, scoring="neg_log_loss"
    )
    probs = model.fit(learned, truth).predict_proba(inputs.numpy())
    said = model.classes_[probs.argmax(1)]
    return student, judged({"max probability": probs.max(1)}, said, labels, pool)


def judged(scores, said, labels, pool) -> Population:
    agrees = np.where(pool < 0, np.nan, said == pool)
    return Population(scores, said == labels, agrees)


def tried(who: Population, kind: str, target: float, n: int, seed: int) -> np.ndarray:
    """Share answered alone, and whether the promise is broken, of resamples and of splits."""
    good = who.right.astype(float) if kind == "accuracy" else who.agrees
    rows = np.flatnonzero(~np.isnan(good))
    good = good[rows] == 1
    scores = {name: values[rows] for name, values in who.scores.items()}
    chance = np.random.default_rng([seed, n, round(1000 * target)])
    found = []
    for _ in range(SPLITS):
        alone = policy(scores, good, chance.integers(len(rows), size=n), target)
        broken = alone.any() and good[alone].mean() < target
        if n < len(rows):
            some = chance.permutation(len(rows))
            split = policy(scores, good, some[:n], target)[some[n:]]
            below = split.any() and good[some[n:]][split].mean() < target
        else:
            below = np.nan
        found.append((alone.mean(), broken, below))
    return np.array(found, dtype=float)


def policy(scores, good, rows, target) -> np.ndarray:
    """Which of all rows are answered alone by the policy that some rows find."""
    own = {name: values[rows] for name, values in scores.items()}
    score, rest = choose_score(own, good[rows])
    expected = next(iter(own.values()))[rest]
    above = threshold(own[score][rest], good[rows][rest], target, expected=expected)
    return scores[score] > above


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=RECIPES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, help="where students stay, to be used again")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        people = []
        for seed in asked.seeds:
            out = (asked.out or Path(place)) / f"{asked.task}-{seed}"
            people.append(answered(asked.task, seed, out))
    for i, name in enumerate(("student", "rival")):
        right = np.mean([pair[i].right.mean() for pair in people])
        print(f"{name}: accuracy {right:.3f} on {len(people[0][0].right)} rows a seed")
    print("| promise | rows | alone | rival | broken | rival | splits | rival |")
    print("|---|---|---|---|---|---|---|---|")
    gaps = []
    for kind in ("accuracy", "agreement"):
        for target in TARGETS:
            for n in SIZES:
                pairs = list(zip(asked.seeds, people, strict=True))
                own, other = (
                    np.mean([tried(p[i], kind, target, n, seed) for seed, p in pairs], axis=(0, 1))
                    for i in (0, 1)
                )
                gaps.append(own[0] - other[0])
                cells = [
                    "–" if np.isnan(who[j]) else f"{who[j]:.3f}"
                    for j in range(3)
                    for who in (own, other)
                ]
                print(f"| {kind} {target} | {n} | " + " | ".join(cells) + " |", flush=True)
    print(f"alone, student less rival: mean {np.mean(gaps):.3f}, least {np.min(gaps):.3f}")


if __name__ == "__main__":
    main()
