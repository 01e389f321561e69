"""Is what is outside flagged, and do sets keep their promise where a file's rows are others?

    python benchmarks/outside.py digits
    python benchmarks/outside.py deeploc         # needs the data, see docs/data.md

Digits: the images of scikit-learn, 8 or 28 pixels wide, from two sources: as they are, and
inverted, blurred or thickened. Two teachers know a source each; 600 images teach the student, 100
of them labelled; 300 calibrate, and 497 test. Outsiders are silhouettes, scribbles, noise, shuffled
pixels, halves of two digits and, where the data are there, photographs (CIFAR-10). DeepLoc 2.0: one
kingdom is left out of training, calibration and one test file, and is another.

First table: the share that is flagged, of the test images by source (without and with the groups
known) and of the outsiders, and the area under the ROC curve of the outside score between these and
the test images. Second table, of whole files: coverage of the 90 % sets as calibrated and as given,
their mean size, the share of rows that is flagged, and what is told: nothing, that sets are
weighted, or not to rely on them. A silent miss is a file of which nothing is told and whose
coverage is not in 0.85-0.95.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.path import Path as Outline
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import roc_auc_score
from torch import nn

from mtbkd import MapSettings, PriorSettings, SamplerSettings, align, distill, make_dataset
from mtbkd.app.data import data_root
from mtbkd.app.recipes.base import mlp
from mtbkd.app.recipes.deeploc.shared import LOCATIONS, Standardise, loudness
from mtbkd.data import Dataset
from mtbkd.distillation.posterior import Posterior
from mtbkd.explain.causes import RARE, Background, Causes, find_causes, make_background
from mtbkd.explain.conformal import whole_coverage
from mtbkd.explain.outside import see
from mtbkd.explain.promise import judge_file
from mtbkd.explain.shift import compared
from mtbkd.inputs.proteins.features import sequence_features
from mtbkd.inputs.tables import read_table
from mtbkd.metrics import coverage
from mtbkd.outputs.aligned import TeacherOutputs, make_table

DIGITS = tuple("0123456789")
LOOKS = ((8, "inverted"), (8, "thickened"), (28, "blurred"))
KINGDOMS = ("Metazoa", "Fungi", "Viridiplantae")
PROTEINS = 1000
OUTSIDERS = 300
EPOCHS, STEPS = 60, 500


@dataclass(frozen=True)
class World:
    """A student and what it is asked.

    Attributes:
        posterior: The student.
        train: What it learned from.
        calibration: What it did not.
        teachers: Of both.
        sources: The source of each calibration example, or None.
        outsiders: Inputs that should be flagged, by what they are.
        files: Labelled files by name.
    """

    posterior: Posterior
    train: Dataset
    calibration: Dataset
    teachers: TeacherOutputs
    sources: np.ndarray | None
    outsiders: Mapping[str, np.ndarray]
    files: Mapping[str, Dataset]


def silhouette(size: int, chance: np.random.Generator, kind: int) -> np.ndarray:
    """A blob, a polygon or an ellipse on four legs."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
    if kind == 0:
        noise = ndimage.gaussian_filter(
            chance.normal(size=(size, size)), size * chance.uniform(0.1, 0.2)
        )
        filled = noise > np.quantile(noise, chance.uniform(0.4, 0.8))
    elif kind == 1:
        n = chance.integers(3, 9)
        angle, radius = np.sort(chance.uniform(0, 2 * np.pi, n)), chance.uniform(0.3, 1, n)
        corners = np.c_[radius * np.cos(angle), radius * np.sin(angle)]
        filled = Outline(corners).contains_points(np.c_[x.ravel(), y.ravel()]).reshape(x.shape)
    else:
        high, long, top = (
            chance.uniform(0.2, 0.35),
            chance.uniform(0.5, 0.8),
            chance.uniform(-0.3, 0.1),
        )
        filled = (x / long) ** 2 + ((y - top) / high) ** 2 < 1
        for leg in (-0.6, -0.3, 0.3, 0.6):
            filled |= (
                (abs(x - leg * long * 1.2) < 0.1) & (y > top) & (y < top + chance.uniform(0.5, 0.9))
            )
        side = chance.choice([-1, 1])
        head = (x - side * long) ** 2 + (y - top + 0.3) ** 2
        filled |= head < chance.uniform(0.15, 0.3) ** 2
    return ndimage.gaussian_filter(filled.astype(float), size * 0.02)


def scribble(size: int, chance: np.random.Generator) -> np.ndarray:
    """A smooth stroke as thick as a digit's, through five random places."""
    places = chance.uniform(0.1, 0.9, (2, 5))
    path = ndimage.zoom(places, (1, 40), order=3).clip(0.05, 0.95) * (size - 1)
    image = np.zeros((size, size))
    image[tuple(path.round().astype(int))] = 1
    thick = ndimage.gaussian_filter(image, size * 0.06)
    return (thick / np.quantile(thick, 0.9)).clip(0, 1)


def outsiders(images: np.ndarray, size: int, chance: np.random.Generator) -> dict[str, np.ndarray]:
    some, others = (images[chance.permutation(len(images))[:OUTSIDERS]] for _ in range(2))
    n = len(some)
    halves = some.copy()
    halves[:, :, size // 2 :] = others[:, :, size // 2 :]
    found = {
        "silhouettes": np.stack([silhouette(size, chance, i % 3) for i in range(n)]),
        "scribbles": np.stack([scribble(size, chance) for _ in range(n)]),
        "noise": chance.random(some.shape) * chance.uniform(0.3, 1, (n, 1, 1)),
        "shuffled": chance.permuted(some.reshape(n, -1), axis=1).reshape(some.shape),
        "halves": halves,
    }
    path = data_root(None) / "cifar10h" / "images.npz"
    if path.exists():
        with np.load(path) as stored:
            photographs = stored[stored.files[0]][:n].mean(-1) / 255
        factor = size / photographs.shape[1]
        found["photographs"] = ndimage.zoom(photographs, (1, factor, factor), order=1).clip(0, 1)
    return found


def corrupted(images: np.ndarray, size: int, chance: np.random.Generator) -> dict[str, np.ndarray]:
    def turned(degrees: float) -> np.ndarray:
        return ndimage.rotate(images, degrees, axes=(1, 2), reshape=False, order=1)

    def noisy(deviation: float) -> np.ndarray:
        return (images + chance.normal(0, deviation, images.shape)).clip(0, 1)

    width = 0.1 * size
    return {
        "noise 0.15": noisy(0.15),
        "noise 0.3": noisy(0.3),
        "blur": ndimage.gaussian_filter(images, (0, width, width)),
        "turned by 12": turned(12),
        "turned by 25": turned(25),
    }


def other_source(images: np.ndarray, size: int, look: str) -> np.ndarray:
    width = size / 8
    if look == "inverted":
        return 1 - 0.8 * ndimage.gaussian_filter(images, (0, 0.5 * width, 0.5 * width))
    if look == "blurred":
        return ndimage.gaussian_filter(images, (0, 0.7 * width, 0.7 * width))
    return ndimage.grey_dilation(images, (1, int(width) + 1, int(width) + 1))


def digit_world(size: int, look: str, seed: int) -> World:
    chance = np.random.default_rng(seed)
    stored: Any = load_digits()
    images = ndimage.zoom(stored.images / 16, (1, size / 8, size / 8), order=1).clip(0, 1)
    n, labels = len(images), stored.target
    source = (chance.random(n) < 0.4).astype(np.int64)
    images = np.where(source[:, None, None] == 1, other_source(images, size, look), images)
    teach, train, calibration, test = np.split(chance.permutation(n), [400, 1000, 1300])
    flat = images.reshape(n, -1).astype(np.float32)
    ids = [f"{i}" for i in range(n)]
    tables = []
    for which in (0, 1):
        rows = teach[source[teach] == which]
        model = ExtraTreesClassifier(100, random_state=seed).fit(flat[rows], labels[rows])
        probs = np.zeros((n, 10))
        probs[:, model.classes_] = model.predict_proba(flat)
        tables.append(make_table(f"source {which}", probs, kind="probs", ids=ids, classes=DIGITS))
    known = labels.copy()
    known[train[100:]] = -1
    data = make_dataset(flat, labels=known, classes=DIGITS, ids=ids)
    teachers = align(tables, ids, DIGITS)
    hidden = 32 if size == 8 else 64
    posterior = distill(
        mlp([size * size, hidden, 10]),
        data.subset(train),
        teachers,
        calibration=data.subset(calibration),
        prior=PriorSettings(power=10.0, discount=0.0),
        modes=MapSettings(epochs=EPOCHS),
        sampler=SamplerSettings(burn_in=STEPS, draws=10, thinning=STEPS // 10, batch_size=300),
        seed=seed,
    )

    def file(changed: np.ndarray, rows: np.ndarray) -> Dataset:
        return make_dataset(changed.reshape(len(rows), -1), labels=labels[rows], classes=DIGITS)

    changed = corrupted(images[test], size, chance)
    sources = {f"source {i}": test[source[test] == i] for i in (0, 1)}
    return World(
        posterior=posterior,
        train=data.subset(train),
        calibration=data.subset(calibration),
        teachers=teachers,
        sources=source[calibration],
        outsiders=outsiders(images[test], size, chance),
        files={"test": file(images[test], test)}
        | {name: file(images[rows], rows) for name, rows in sources.items()}
        | {name: file(part, test) for name, part in changed.items()},
    )


@functools.cache
def read_proteins(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, locations, partitions and kingdoms of some proteins of each partition."""
    parts = []
    for partition in range(5):
        table = read_table(
            data_root(None) / "deeploc2_full" / f"partition{partition}.csv.gz", "proteins"
        )
        chance = np.random.default_rng([seed, partition])
        rows = chance.permutation(table.cells.num_rows)[:PROTEINS]
        sequences, places, kingdoms = (table.words(n) for n in ("sequence", "label", "kingdom"))
        parts.append((
            sequence_features([sequences[i] for i in rows]),
            [[place in places[i].split("|") for place in LOCATIONS] for i in rows],
            np.full(len(rows), partition),
            [kingdoms[i] for i in rows],
        ))  # fmt: skip
    features, locations, partitions, kingdoms = (
        np.concatenate(p) for p in zip(*parts, strict=True)
    )
    return features.astype(np.float32), locations.astype(np.float32), partitions, kingdoms


def protein_world(left_out: str, several: bool, seed: int) -> World:
    features, places, partition, kingdom = read_proteins(seed)
    if not several:
        one = places.sum(1) == 1
        features, places, partition, kingdom = (
            part[one] for part in (features, places, partition, kingdom)
        )
    labels = places if several else places.argmax(1)
    family = "multilabel" if several else "classification"
    inside, ids, tables = kingdom != left_out, [f"{i}" for i in range(len(places))], []
    for which in (0, 1):
        rows = inside & (partition == which)
        model = ExtraTreesClassifier(100, min_samples_leaf=3, random_state=seed)
        model.fit(features[rows], labels[rows])
        probs = np.zeros((len(ids), len(LOCATIONS)))
        if several:
            for i, column in enumerate(model.predict_proba(features)):
                probs[:, i] = column[:, 1] if column.shape[1] == 2 else 0.0
        else:
            probs[:, model.classes_] = model.predict_proba(features)
        tables.append(
            make_table(
                f"partition {which}",
                probs,
                kind="probs",
                ids=ids,
                classes=LOCATIONS,
                family=family,
            )
        )
    data = make_dataset(features, labels=labels, classes=LOCATIONS, ids=ids, family=family)
    train, calibration, test, other = (
        data.subset(np.flatnonzero(rows))
        for rows in (
            inside & (partition < 3),
            inside & (partition == 3),
            inside & (partition == 4),
            ~inside & (partition > 2),
        )
    )
    teachers = align(tables, ids, LOCATIONS)
    posterior = distill(
        nn.Sequential(Standardise(train.inputs, loudness()), *mlp([features.shape[1], 64, 10])),
        train,
        teachers,
        calibration=calibration,
        prior=PriorSettings(power=0.05 if several else 1.0, concentration=5.0, discount=0.0),
        modes=MapSettings(epochs=12, batch_size=100, learning_rate=0.02),
        sampler=SamplerSettings(engine="ensemble"),
        weight_scale=1.75,
        seed=seed,
    )
    return World(
        posterior=posterior,
        train=train,
        calibration=calibration,
        teachers=teachers,
        sources=None,
        outsiders={},
        files={"test": test, f"left out: {left_out}": other},
    )


def judged(world: World, background: Background, inputs: torch.Tensor) -> tuple[Causes, Causes]:
    """What is said of each example, and what of the file."""
    predictive = world.posterior.predict(inputs)
    seen = see(world.posterior, world.posterior.student.features(inputs))
    causes = find_causes(background, seen, predictive)
    shown = seen.at(compared(len(inputs)))
    return causes, judge_file(background, shown, predictive, causes, world.posterior.classes)


def held(causes: Causes, file: Dataset) -> float:
    labels = file.labels.numpy()
    assert causes.sets is not None
    return (
        coverage(causes.sets, labels) if labels.ndim == 1 else whole_coverage(causes.sets, labels)
    )


def show(name: str, world: World, seed: int) -> None:
    def background(groups: np.ndarray | None) -> Background:
        return make_background(
            world.posterior,
            world.train,
            world.calibration,
            world.teachers,
            answers=world.posterior.predict(world.calibration.inputs),
            level=0.9,
            seed=seed,
            groups=groups,
        )

    plain = background(None)
    print(f"\n{name}\n")
    if world.sources is not None:
        known = background(world.sources)
        print("| examples | flagged | groups known | AUROC |\n|---|---|---|---|")
        test = judged(world, plain, world.files["test"].inputs)[0].outside
        inputs = {n: world.files[n].inputs for n in ("source 0", "source 1")} | {
            n: torch.from_numpy(part.reshape(len(part), -1).astype(np.float32))
            for n, part in world.outsiders.items()
        }
        for n, part in inputs.items():
            found, grouped = (judged(world, b, part)[0].outside for b in (plain, known))
            truth = np.repeat([0, 1], [len(test), len(found)])
            area = roc_auc_score(truth, -np.concatenate([test, found]))
            told = "" if n in world.files else f"{area:.3f}"
            shares = [f"{(p <= RARE).mean():.3f}" for p in (found, grouped)]
            print(f"| {n} | {' | '.join(shares)} | {told} |", flush=True)
        print()
    print("| file | calibrated | as given | size | flagged | told |\n|---|---|---|---|---|---|")
    for n, file in world.files.items():
        before, after = judged(world, plain, file.inputs)
        told = after.note.partition(": ")[2] or "nothing"
        told = told.replace("their sets (`possible`) are ", "").partition(", which no")[0]
        assert after.sets is not None
        cells = [held(before, file), held(after, file), after.sets.sum(1).mean()]
        cells += [(before.outside <= RARE).mean()]
        miss = not after.note and not 0.85 <= cells[1] <= 0.95
        told += " **silent miss**" if miss else ""
        print(f"| {n} | {' | '.join(f'{c:.3f}' for c in cells)} | {told} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=["digits", "deeploc"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for seed in asked.seeds:
        if asked.data == "digits":
            for size, look in LOOKS:
                name = f"digits, {size} pixels wide, some {look}, seed {seed}"
                show(name, digit_world(size, look, seed), seed)
        else:
            for several in (True, False):
                for kingdom in KINGDOMS:
                    what = "all locations" if several else "one location"
                    name = f"deeploc, {what}, without {kingdom}, seed {seed}"
                    show(name, protein_world(kingdom, several, seed), seed)


if __name__ == "__main__":
    main()
