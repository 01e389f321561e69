"""An exported folder, read back: checked, asked by onnxruntime, or put into its network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mtbkd.app.recipes.base import Before
from mtbkd.errors import collect, need
from mtbkd.files import check_hash, load_tensors, read_json, read_sealed
from mtbkd.inference.samples import PosteriorSamples
from mtbkd.observation.units import Units
from mtbkd.predictive import Answer, predict
from mtbkd.student.student import Student, make_student
from mtbkd.types import InputError, refuse

MODEL, WEIGHTS, CONFIG = "model.onnx", "model.safetensors", "config.json"
EXAMPLES, NAMES = "examples.safetensors", "examples.json"
CARD, MANIFEST = "README.md", "manifest.json"
_THEN = "Export the run again, or fetch the folder again."


@dataclass(frozen=True)
class Exported:
    """A student that onnxruntime asks.

    Attributes:
        config: The content of ``config.json``.
        session: That of onnxruntime.
    """

    config: dict[str, Any]
    session: Any

    def predict(self, inputs: ArrayLike | Tensor) -> dict[str, NDArray[Any]]:
        """Everything that the graph says, by name, each of shape (example, ...).

        Args:
            inputs: As ``config["inputs"]`` says, shape (example, ...).

        Raises:
            InputError: If they are of another shape.
        """
        wanted = self.config["inputs"]
        values = np.ascontiguousarray(np.asarray(inputs), dtype=wanted["dtype"])
        if list(values.shape[1:]) != wanted["shape"]:
            raise InputError(
                f"Expected inputs of shape (example, {', '.join(map(str, wanted['shape']))}), "
                f"{wanted['what']}, but got {values.shape}. Correct them."
            )
        names = [output["name"] for output in self.config["outputs"]]
        return dict(zip(names, self.session.run(names, {"inputs": values}), strict=True))


def check_exported(folder: str | Path) -> dict[str, Any]:
    """The content of ``manifest.json`` of a folder whose files are as they were written.

    Raises:
        InputError: With one message for each file that is missing or was changed.
    """
    place = Path(folder)
    manifest = read_sealed(place / MANIFEST, _THEN, "sha256", "opset")
    faults: list[str] = []
    for name, digest in manifest["sha256"].items():
        collect(faults, lambda name=name, digest=digest: check_hash(place / name, digest, _THEN))
    refuse(*faults)
    return manifest


def load_exported(folder: str | Path, *, threads: int = 1) -> Exported:
    """Read what `mtbkd export` wrote; nothing but onnxruntime is run.

    Args:
        folder: The exported folder.
        threads: As many as onnxruntime takes.

    Raises:
        InputError: If a file is missing or was changed, or onnxruntime is not installed.
    """
    place = Path(folder)
    check_exported(place)
    return open_exported(place, read_json(place / CONFIG, _THEN), threads)


def open_exported(place: Path, config: dict[str, Any], threads: int = 1) -> Exported:
    """The same of a folder that is known to be as it was written."""
    runtime = need("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    session = runtime.InferenceSession(
        str(place / MODEL), options, providers=["CPUExecutionProvider"]
    )
    return Exported(config, session)


@dataclass(frozen=True)
class Weights:
    """A student in its network, asked by torch.

    Attributes:
        student: At its temperature.
        samples: Its draws.
        units: Those of the targets, for regression.
        before: What is done to inputs before the student reads them.
        config: The content of ``config.json``.
    """

    student: Student
    samples: PosteriorSamples
    units: Units | None
    before: Before
    config: dict[str, Any]

    def predict(self, inputs: ArrayLike | Tensor) -> Answer:
        """As `mtbkd.predictive.predict`, of inputs before anything is done to them."""
        return predict(
            self.student,
            self.samples,
            self.before(torch.as_tensor(inputs)),
            family=self.config["family"],
            units=self.units,
            level=self.config["level"],
            point=self.config["point"],
        )


def load_weights(folder: str | Path, network: nn.Module) -> Weights:
    """Put the draws of an exported folder into a network, which is given and never read from it.

    Args:
        folder: The exported folder.
        network: As the student was built; its weights do not matter.

    Raises:
        InputError: If a file is missing or was changed, or it is another network.
    """
    place = Path(folder)
    check_exported(place)
    config, tensors = read_json(place / CONFIG, _THEN), load_tensors(place / WEIGHTS)
    read = torch.zeros(2, *config["read"]["shape"], dtype=getattr(torch, config["read"]["dtype"]))
    student = make_student(network, sampled=config["sampled"], example=read)
    fixed, held = student.fixed(), _under("fixed.", tensors)
    shapes = {name: tuple(shape) for name, shape in config["parameters"].items()}
    own = dict(zip(student.names, map(tuple, student.shapes), strict=True))
    if own != shapes or {n: t.shape for n, t in fixed.items()} != {
        n: t.shape for n, t in held.items()
    }:
        raise InputError(
            f"Expected the network that was exported to {place}, but its shapes differ. Build it "
            "with the same sizes."
        )
    for name, value in fixed.items():
        value.copy_(held[name])
    draws = torch.cat([tensors[f"draws.{n}"].float().flatten(1) for n in shapes], 1)
    units, before = _under("units.", tensors), _under("before.", tensors)
    return Weights(
        student=replace(student, temperature=config["temperature"]),
        samples=PosteriorSamples((draws[:, None],), tuple(shapes), tuple(shapes.values())),
        units=Units(**units) if units else None,
        before=Before(
            config["inputs"]["what"],
            mean=before["mean"],
            scale=before["scale"],
            clip=config["clip"],
        ),
        config=config,
    )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin so, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
