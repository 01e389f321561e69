"""What it is worth that teachers' weights see the input and the class that a teacher names.

    python benchmarks/trust.py
    python benchmarks/trust.py --tasks thick/source thick/noise --labels 20 100 --seeds 0 1 2 3 4
    python benchmarks/trust.py --speed

A task is a look and a kind of experts. scikit-learn's digits come from two sources at random: as
they are, and inverted, blurred, thickened or rotated. 600 images teach the teachers, which are
MLPs; the other 1,197 are asked about. Some of these are labelled, the weights are fitted to them,
and the teachers' pool is scored on all that are not.

``source``: two teachers know one source each, a third has seen 60 images of both. ``class``: two
know half of the classes each and have seen 3 % of the others, and the same third. ``alike``: three
that differ by their start only, taught by 200 images of both sources. ``liar``: two of these, and
one of them again under the name of the next class. ``noise``: two of these, and chance.

The table: NLL (nats) and accuracy of the pool, means over seeds, (a) where weights see the
teachers' own confidence only and (b) where they may see input and class too, as they do by default;
the difference of their NLL, b - a, with its standard error over seeds; and in how many seeds the
input and the class were seen.

With ``--speed``: CPU seconds of a fit to 150 labels, three teachers, as it is and as it was at
another commit of this repository, one after the other in the same process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
import torch
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from mtbkd import align, make_dataset
from mtbkd.app.run.scoring import pool_of, pool_scores
from mtbkd.data import Dataset
from mtbkd.distillation.choose import choose_weighting
from mtbkd.outputs.aligned import TeacherOutputs, make_table
from mtbkd.weights import stacking
from mtbkd.weights.directions import find_directions
from mtbkd.weights.rules import Weighting

DIGITS = tuple("0123456789")
TEACH, FEW, SOME = 600, 60, 200
EPOCHS = 150

LOOKS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "invert": lambda images: 1 - images,
    "blur": lambda images: 1.5 * ndimage.gaussian_filter(images, (0, 1, 1)),
    "thick": lambda images: ndimage.grey_dilation(images, (1, 2, 2)),
    "rotate": lambda images: np.rot90(images, axes=(1, 2)),
}
EXPERTS = ("source", "class", "alike", "liar", "noise")
DEFAULT = ("thick/source", "invert/source", "blur/source", *(f"thick/{e}" for e in EXPERTS[1:]))


def looking(images: np.ndarray, look: str) -> np.ndarray:
    """The same images as the second source has them."""
    return LOOKS[look](images).clip(0, 1)


def taught(images: np.ndarray, labels: np.ndarray, asked: np.ndarray, seed: int) -> np.ndarray:
    """What a teacher that was taught by these images says, (example, class)."""
    model = MLPClassifier((64,), alpha=1e-6, max_iter=EPOCHS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(images.reshape(len(images), -1), labels)
    probs = np.zeros((len(asked), len(DIGITS)))
    probs[:, model.classes_] = model.predict_proba(asked.reshape(len(asked), -1))
    return probs


def answers(
    experts: str,
    sources: Sequence[np.ndarray],
    labels: np.ndarray,
    asked: np.ndarray,
    chance: np.random.Generator,
) -> list[np.ndarray]:
    """What each teacher says, given the teaching images as either source has them."""

    def of_both(rows: slice | np.ndarray, seed: int) -> np.ndarray:
        both = np.concatenate([part[rows] for part in sources])
        return taught(both, np.tile(labels[rows], 2), asked, seed)

    if experts == "source":
        own = [taught(part, labels, asked, seed) for seed, part in enumerate(sources)]
        return [*own, of_both(slice(FEW), 2)]
    if experts == "class":
        strays = chance.random((2, TEACH)) < 0.03
        halves = [(labels // 5 == half) | strays[half] for half in (0, 1)]
        return [*(of_both(rows, half) for half, rows in enumerate(halves)), of_both(slice(FEW), 2)]
    first, second = (of_both(slice(SOME), seed) for seed in (0, 1))
    third = {
        "alike": lambda: of_both(slice(SOME), 2),
        "liar": lambda: np.roll(first, 1, axis=1),
        "noise": lambda: chance.dirichlet(np.full(len(DIGITS), 0.3), len(asked)),
    }
    return [first, second, third[experts]()]


def make_task(name: str, seed: int) -> tuple[Dataset, TeacherOutputs]:
    """Images that no teacher was taught by, all labelled, and what the teachers say of them."""
    look, experts = name.split("/")
    chance = np.random.default_rng(seed)
    flat, labels = load_digits(return_X_y=True)
    order = chance.permutation(len(labels))
    images, labels = flat[order].reshape(-1, 8, 8) / 16, labels[order]
    teach, asked = images[:TEACH], images[TEACH:]
    second = chance.integers(0, 2, len(asked)) == 1
    asked = np.where(second[:, None, None], looking(asked, look), asked)
    said = answers(experts, (teach, looking(teach, look)), labels[:TEACH], asked, chance)
    inputs = asked.reshape(len(asked), -1).astype(np.float32)
    data = make_dataset(inputs, labels=labels[TEACH:], classes=DIGITS)
    tables = [
        make_table(f"teacher {k}", probs, kind="probs", ids=data.ids, classes=DIGITS)
        for k, probs in enumerate(said)
    ]
    return data, align(tables, data.ids, DIGITS)


def measure(data: Dataset, teachers: TeacherOutputs, n_labels: int) -> np.ndarray:
    """NLL and accuracy of (a), of (b), and whether (b) saw the input and the class."""
    labels = data.labels.clone()
    labels[n_labels:] = -1
    some = replace(data, labels=labels)
    others = data.subset(range(n_labels, len(data)))

    def fit_and_score() -> tuple[stacking.Stacked, list[float]]:
        weighting = choose_weighting("stacked", some, teachers, None, None)
        outputs = teachers.at(others.ids)
        pool = pool_of(outputs, weighting, None, others.inputs)
        found = pool_scores(outputs, pool, others.labels, None)
        assert weighting.stacked is not None
        return weighting.stacked, [found["nll"], found["accuracy"]]

    with patch.dict(stacking._FURTHER, clear=True):
        _, before = fit_and_score()
    fit, after = fit_and_score()
    seen = [fit.by_input is not None, fit.by_class is not None]
    return np.array([*before, *after, *seen], float)


def row(name: str, n_labels: int, found: np.ndarray) -> str:
    """A line of the table, of what was measured, (seed, number)."""
    n = len(found)
    nll_a, accuracy_a, nll_b, accuracy_b = found[:, :4].mean(0)
    gap = found[:, 2] - found[:, 0]
    error = f" ± {gap.std(ddof=1) / n**0.5:.3f}" if n > 1 else ""
    by_input, by_class = found[:, 4:].sum(0).astype(int)
    cells = [name, f"{n_labels}", f"{nll_a:.3f}", f"{nll_b:.3f}", f"{gap.mean():+.3f}{error}"]
    cells += [f"{accuracy_a:.3f}", f"{accuracy_b:.3f}", f"{by_input}, {by_class} of {n}"]
    return f"| {' | '.join(cells)} |"


def at_commit(commit: str) -> ModuleType:
    """`mtbkd.weights.stacking` as it was, with everything else as it is."""
    path = "src/mtbkd/weights/stacking.py"
    command = ["git", "-C", str(Path(__file__).parents[1]), "show", f"{commit}:{path}"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    module = sys.modules["stacking_before"] = ModuleType("stacking_before")
    exec(compile(text, f"{commit}:{path}", "exec"), module.__dict__)
    return module


def compare_speed(commit: str, n_labels: int = 150) -> None:
    """Fits to experts on one side each of the inputs, and a third of neither."""
    print("| classes | threads | CPU s before | CPU s now | ratio | largest gap of a weight |")
    print("|---|---|---|---|---|---|")
    before = at_commit(commit)
    before.__dict__["_BETTER"] = stacking._BETTER  # what lets a further term in
    for n_classes in (3, 5, 10):
        chance = torch.Generator().manual_seed(n_classes)
        inputs = torch.randn(n_labels, 8, generator=chance)
        labels = torch.randint(n_classes, (n_labels,), generator=chance)
        said = torch.randn(3, n_labels, n_classes, generator=chance)
        side = (inputs[:, 0] > 0).long()
        right = torch.rand(3, n_labels, generator=chance)
        right = right < torch.stack([0.5 + 0.45 * side, 0.95 - 0.45 * side, side * 0 + 0.6])
        said += 4 * right[..., None] * torch.nn.functional.one_hot(labels, n_classes)
        said = torch.log_softmax(said, -1)
        mask, directions = torch.ones(3, n_labels, dtype=torch.bool), find_directions(inputs)
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            spent, weights = [], []
            for module in (before, stacking):
                taken = []
                for _ in range(2):  # the first may have to warm up
                    begin = time.process_time()
                    fit = module.fit_stacked(
                        said, mask, labels, features=inputs, directions=directions
                    )
                    taken.append(time.process_time() - begin)
                spent.append(min(taken))
                weighed = Weighting("stacked", fit).apply(said, mask, features=inputs)
                weights.append(weighed.log_weights.exp())
            gap = float((weights[0] - weights[1]).abs().max())
            cells = [f"{n_classes}", f"{n_threads}", f"{spent[0]:.2f}", f"{spent[1]:.2f}"]
            cells += [f"{spent[0] / spent[1]:.0f}", f"{gap:.0e}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tasks = [f"{look}/{experts}" for look in LOOKS for experts in EXPERTS]
    parser.add_argument("--tasks", nargs="+", choices=tasks, default=DEFAULT, metavar="TASK")
    parser.add_argument("--labels", type=int, nargs="+", default=[20, 50, 100, 300])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--speed", action="store_true", help="how long a fit takes, and took")
    parser.add_argument("--before", default="5796a7e", metavar="COMMIT", help="for --speed")
    asked = parser.parse_args()
    if asked.speed:
        compare_speed(asked.before)
        return
    torch.set_num_threads(1)
    print("| task | labels | NLL a | NLL b | b - a | accuracy a | accuracy b | input, class seen |")
    print("|---|---|---|---|---|---|---|---|")
    for name in asked.tasks:
        made = [make_task(name, seed) for seed in asked.seeds]
        for n_labels in asked.labels:
            found = np.stack([measure(*task, n_labels) for task in made])
            print(row(name, n_labels, found), flush=True)


if __name__ == "__main__":
    main()
