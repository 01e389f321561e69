"""What is in a picture: 51 people's votes and a network as teachers, of 10,000 images of CIFAR-10.

Teachers are of opposite nature. People (CIFAR-10H, Peterson et al. 2019) disagree where an image is
unclear; the network answered out of sample, and is too sure. The student learns from 6,000 images,
1,000 of them labelled; 1,000 others choose weights and 3,000 test. It is a small convolutional
network of which every parameter is sampled, or, with ``student.kind: encoder``, EfficientNet-Lite0
frozen and a head. How much people disagree about test images was measured, so that the student's
uncertainty is compared with it.

Votes are evidence, of which there may be little: people are a teacher of counts, which is worth no
more on an image than the votes on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtbkd.app.config.run import RunConfig
from mtbkd.app.data import data_root
from mtbkd.app.data.cifar10h import COUNTS, IMAGES, NETWORK
from mtbkd.app.recipes.base import Before, Costs, Recipe, Task, features_only, mlp
from mtbkd.app.recipes.deeploc.shared import Standardise
from mtbkd.app.recipes.efficientnet import lite0_features
from mtbkd.data import make_dataset
from mtbkd.inputs.images.kind import images, picture
from mtbkd.inputs.images.opening import shown
from mtbkd.inputs.tables import read_arrays
from mtbkd.outputs.aligned import TeacherOutputs, align, make_table
from mtbkd.student.components import Components, n_components
from mtbkd.student.convolutional import convolutional
from mtbkd.types import Floats, InputError, Ints, Report, quiet

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SCENARIOS = ("three votes", "half the images")
_TRANSFER, _LABELLED, _CALIBRATION = 6000, 1000, 1000
_FEW = 3  # votes on each image, in the scenario of few
_SIZE = (32, 32)


class Pictures(NamedTuple):
    """The files.

    Attributes:
        pixels: uint8, shape (image, channel, height, width).
        labels: Positions among `CLASSES`.
        votes: How many people named each class, shape (image, class).
        network: Probabilities of the network, shape (image, class).
    """

    pixels: NDArray[np.uint8]
    labels: Ints
    votes: Ints
    network: Floats


class Asked(NamedTuple):
    """What teachers say of the task's examples, and whom people were not asked about."""

    votes: Ints
    network: Floats
    seen: NDArray[np.bool_]


def load(config: RunConfig, folder: Path, report: Report = quiet) -> Task:
    """Split the images by seed; all but the first transfer images lose their labels."""
    files = _read(data_root(config.data) / "cifar10h")
    chance = np.random.default_rng([config.seed, 10])
    order = chance.permutation(len(files.pixels))
    labels = files.labels.copy()
    labels[order[_LABELLED:_TRANSFER]] = -1
    everything = make_dataset(
        _as_read(config, torch.from_numpy(files.pixels), report),
        labels=labels,
        classes=CLASSES,
        ids=[f"image-{i:04d}" for i in range(len(labels))],
        name="CIFAR-10H",
    )
    train, calibration, test = np.split(order, [_TRANSFER, _TRANSFER + _CALIBRATION])
    votes, seen = files.votes[order], np.ones(len(order), bool)
    if config.scenario == SCENARIOS[0]:
        votes = np.stack([chance.multivariate_hypergeometric(row, _FEW) for row in votes])
    if config.scenario == SCENARIOS[1]:
        seen = chance.permutation(len(order)) % 2 == 0
    return Task(
        name="cifar10h",
        train=everything.subset(train),
        calibration=everything.subset(calibration),
        test=everything.subset(test),
        teacher_data=Asked(votes, files.network[order], seen),
        drawn=lambda row: picture(shown(files.pixels[test[row]]), f"image-{test[row]:04d}"),
        spread=entropy(files.votes[test]),
    )


def teach(config: RunConfig, task: Task, report: Report = quiet) -> tuple[TeacherOutputs, Costs]:
    """People's votes and the network's probabilities."""
    asked: Asked = task.teacher_data
    rows = np.flatnonzero(asked.seen)
    people = make_table(
        "people",
        asked.votes[rows],
        kind="counts",
        ids=[task.ids[row] for row in rows],
        classes=CLASSES,
    )
    network = make_table("network", asked.network, kind="probs", ids=task.ids, classes=CLASSES)
    return align([people, network], task.ids, CLASSES, missing="mask"), {}


def network(config: RunConfig, example: Tensor, n_outputs: int) -> nn.Module:
    """A small convolutional network, or a head on the features of EfficientNet-Lite0."""
    if config.student.kind != "encoder":
        return convolutional(example, n_outputs)
    start: list[nn.Module] = [Standardise(example)]
    n = n_components(config.student.components, example.shape[-1])
    if n is not None:
        start.append(Components(start[0](example), n))
    return nn.Sequential(*start, *mlp([n or example.shape[-1], *config.student.hidden, n_outputs]))


def read_as(
    config: RunConfig, folder: Path, source: Path, report: Report = quiet
) -> tuple[tuple[str, ...], Tensor]:
    """Read new images, which are brought to 32 by 32: a folder, a table of paths, or NPZ."""
    kind = images("id", "images", size=_SIZE, channels=3)
    rows = kind.read(source)
    pixels = kind.tensor(rows.values)
    return rows.ids, _as_read(config, pixels, report)


def entropy(votes: Ints) -> Floats:
    """Entropy of the shares of votes, in nats, shape (image, class) to (image,)."""
    shares = votes / votes.sum(1, keepdims=True)
    return -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(1)


def before(config: RunConfig, out: Path) -> Before:
    """Bytes, or what EfficientNet makes of them."""
    if config.student.kind == "encoder":
        return features_only(config, out)
    return Before("images of 3 by 32 by 32 bytes")


def _as_read(config: RunConfig, pixels: Tensor, report: Report) -> Tensor:
    """What the student reads: bytes, or EfficientNet's features."""
    return lite0_features(pixels, report) if config.student.kind == "encoder" else pixels


def _read(place: Path) -> Pictures:
    """The three files.

    Raises:
        InputError: If one is not there, or does not fit the others.
    """
    missing = [name for name in (IMAGES, COUNTS, NETWORK) if not (place / name).exists()]
    if missing:
        raise InputError(
            f"Expected images of CIFAR-10 and the votes of CIFAR-10H in {place}, but "
            f"{', '.join(missing)} is missing. Fetch them with `mtbkd data get cifar10h`."
        )
    arrays = read_arrays(place / IMAGES, "images")
    votes = read_arrays(place / COUNTS, "votes")[""]
    network = read_arrays(place / NETWORK, "probabilities")[""]
    pixels, labels = arrays.get("images"), arrays.get("labels")
    n = 0 if pixels is None else len(pixels)
    shape = (n, len(CLASSES))
    if (
        pixels is None
        or labels is None
        or pixels.shape != (n, *_SIZE, 3)
        or (len(labels), votes.shape, network.shape) != (n, shape, shape)
    ):
        raise InputError(
            f"Expected images of 32 by 32 with labels, votes and probabilities of {len(CLASSES)} "
            f"classes for each in {place}, but the files have other shapes. Fetch them again."
        )
    return Pictures(
        pixels=np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)),
        labels=labels.astype(np.int64),
        votes=votes.astype(np.int64),
        network=network.astype(np.float64),
    )


RECIPE = Recipe(
    name="cifar10h",
    summary="What is in a picture: people's votes and a network; a student that sees.",
    needs="mtbkd data get cifar10h (171 MB); of EfficientNet, mtbkd[vision]",
    defaults={
        "recipe": "cifar10h",
        "prior": {"power": "auto", "discount": "auto"},
        "student": {
            "kind": "cnn",
            "hidden": [64],
            "weight_scale": 2.0,
            "components": 96,
            "augment": "flip+crop",
        },
        "map": {"epochs": 20, "batch_size": 128, "learning_rate": 0.01},
        "sampler": {"burn_in": 200, "draws": 40, "thinning": 25, "batch_size": None},
        "chains": 4,
        "budget": "9 min",
    },
    load=load,
    teach=teach,
    network=network,
    read_as=read_as,
    scenarios=SCENARIOS,
    students=("cnn", "encoder"),
    before=before,
)
