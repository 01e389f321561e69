"""`mtbkd export`: from a run directory to a folder that is shipped."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtbkd.app.export.answers import nll
from mtbkd.app.export.card import card
from mtbkd.app.export.examples import write_examples
from mtbkd.app.export.graph import OPSET, Graph, Parts, quantised, to_onnx
from mtbkd.app.export.loading import (
    CARD,
    CONFIG,
    MANIFEST,
    MODEL,
    WEIGHTS,
    check_exported,
    open_exported,
)
from mtbkd.app.folder import JUDGED, POLICY, check_run, read_run
from mtbkd.app.recipes import find_recipe
from mtbkd.app.recipes.base import Before, Task
from mtbkd.app.run import stages
from mtbkd.app.run.few import FEW, recall_few
from mtbkd.app.run.policy import read_record
from mtbkd.app.run.report_data import report_data
from mtbkd.distillation.posterior import Posterior
from mtbkd.errors import need
from mtbkd.explain.causes import FLAGS, load_background
from mtbkd.files import (
    new_folder,
    read_json,
    save_json,
    save_sealed,
    save_tensors,
    sha256_of,
    write_bytes,
)
from mtbkd.observation import OUTCOMES
from mtbkd.student.summary import summary
from mtbkd.types import InputError, Report, quiet, refuse

_MOST_OFF, _MOST_OFF_HALF = 1e-4, 2e-2  # beyond which a file is not shipped
_NAMES = ("probs", "total", "aleatoric", "epistemic", "lower", "upper", "mean")


@dataclass(frozen=True)
class Wanted:
    """How a student is exported.

    Attributes:
        draws: As many answer in place of all; None for all.
        half: Whether draws are stored in half precision.
        int8: Whether products are of whole numbers of eight bits.
        head_only: Whether the graph begins behind what makes numbers of examples.
        network: As `read_run` takes it.
    """

    draws: int | None = None
    half: bool = False
    int8: bool = False
    head_only: bool = False
    network: str | None = None


def export_run(
    out: Path, folder: Path, wanted: Wanted = Wanted(), report: Report = quiet
) -> dict[str, Any]:
    """Write the student of a run as ONNX, with its card, its draws and a sealed manifest.

    Args:
        out: The run directory.
        folder: A new folder; it is there whole or not at all.
        wanted: How.
        report: Called with the progress of each stage.

    Returns:
        The content of ``config.json``.

    Raises:
        InputError: If the run is not distilled, a file of it was changed, the folder is not new,
            or its student cannot be exported so.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        need(module, "export")
    _check(folder, wanted)
    needed = ("samples/manifest.json", "teachers/costs.json", stages.BACKGROUND)
    config = read_run(out, *needed, network=wanted.network)
    check_run(out, (*needed, *JUDGED, "examples.json", FEW, POLICY))
    recipe = find_recipe(config.recipe)
    before = recipe.before(config, out)
    if not before.raw and not wanted.head_only:
        raise InputError(
            f"Expected --head-only for {out}, since ONNX cannot hold what makes {before.what}, but "
            "got none. Add it, and make the features elsewhere."
        )
    task = stages.load(recipe, config, out, report)
    teachers, _ = stages.teach(recipe, config, task, out)
    judged = None
    if (out / "evaluation.safetensors").exists():
        judged = report_data(config, task, teachers, out)
    posterior = stages.recall(recipe, config, task.train.inputs[:2], task.train.classes, out)
    if wanted.head_only and posterior.student.frozen is not None:
        task, posterior = stages.on_features(task, posterior, out)
        before = Before("what the sampled part of the network reads", raw=False)
    answering = posterior if wanted.draws is None else _fewer(posterior, task, wanted.draws, out)
    parts = Parts(
        posterior=answering,
        every=replace(posterior, student=replace(posterior.student, frozen=None)),
        background=load_background(out / stages.BACKGROUND, config.predict.level),
        before=before,
        level=config.predict.level,
        point=config.predict.point,
        half=wanted.half,
    )
    policy = policy_of(out)
    with new_folder(folder) as partial:
        told = _written(partial, parts, task, wanted, report)
        write_examples(partial, config, task, teachers, before, posterior.units)
        told["sampled"] = config.student.sampled or "*"
        told["defer"] = policy
        told["run"] = sha256_of(out / "samples" / "manifest.json")
        save_json(partial / CONFIG, told)
        write_bytes(partial / CARD, card(told, config, judged).encode())
        hashes = {path.name: sha256_of(path) for path in sorted(partial.iterdir())}
        save_sealed(partial / MANIFEST, {"opset": OPSET, "sha256": hashes})
    return told


def policy_of(out: Path) -> dict[str, Any] | None:
    """Which answers a run's student may give alone, if it was found, without its figures."""
    if not (out / POLICY).exists():
        return None
    found = read_record(out)
    return {name: found[name] for name in ("goal", "confidence", "score", "above")}


def check_current(folder: Path, out: Path, draws: int | None = None) -> None:
    """Compare an exported folder with the run that it is of.

    Raises:
        InputError: If the run, its policy or the number of draws asked for is another one now.
    """
    check_exported(folder)
    told = read_json(folder / CONFIG)
    changed = [
        name
        for name, same in (
            ("run", told.get("run") == sha256_of(out / "samples" / "manifest.json")),
            ("policy", told.get("defer") == policy_of(out)),
            ("number of draws", draws in (None, told["draws"])),
        )
        if not same
    ]
    if changed:
        raise InputError(
            f"Expected {folder} to be of {out} as it is asked for now, but it has another "
            f"{' and '.join(changed)}. Delete it and run the same command again."
        )


def _written(
    folder: Path, parts: Parts, task: Task, wanted: Wanted, report: Report
) -> dict[str, Any]:
    """Write the graph, the draws and the configuration; returns the latter."""
    inputs = parts.before.undone(task.test.inputs)
    report("graph", 0, 2)
    graph = Graph(parts, inputs[:3]).eval()
    model = to_onnx(graph, inputs[:3], graph.names).model_proto
    model = quantised(model) if wanted.int8 else model
    write_bytes(folder / MODEL, model.SerializeToString())
    report("graph", 1, 2)
    told = _config(graph, parts, task, inputs, wanted)
    told["checked"] = _checked(folder, told, parts, task, inputs, wanted)
    save_tensors(folder / WEIGHTS, _tensors(parts))
    report("graph", 2, 2)
    return told


def _check(folder: Path, wanted: Wanted) -> None:
    """Refuse what cannot be, all faults at once."""
    faults = []
    if wanted.half and wanted.int8:
        faults.append("Expected --half or --int8, but got both. Choose one.")
    if folder.exists():
        faults.append(f"Expected a new folder, but {folder} exists. Choose another --out.")
    if wanted.draws is not None and wanted.draws < 1:
        faults.append(f"Expected --draws of 1 or more, but got {wanted.draws}. Correct it.")
    refuse(*faults)


def _fewer(posterior: Posterior, task: Task, n: int, out: Path) -> Posterior:
    """The few draws that the run keeps, if they are as many, or others that are chosen now."""
    if (out / FEW).exists():
        few = recall_few(posterior, out)
        if few.samples.n_chains * few.samples.n_draws == n:
            return few
    return posterior.thin(n, task.train.inputs)


def _config(
    graph: Graph, parts: Parts, task: Task, inputs: Tensor, wanted: Wanted
) -> dict[str, Any]:
    """What has to be known to ask the graph and to build the student again."""
    posterior, student = parts.posterior, parts.posterior.student
    with torch.no_grad():
        answers = dict(zip(graph.names, graph(inputs[:2]), strict=True))
    return {
        "library_name": "mtbkd",
        "mtbkd": version("mtbkd"),
        "task": task.name,
        "family": posterior.family,
        "classes": list(posterior.classes),
        "level": parts.level,
        "point": parts.point,
        "temperature": student.temperature,
        "draws": posterior.samples.n_chains * posterior.samples.n_draws,
        "stored": "float16" if wanted.half else "int8" if wanted.int8 else "float32",
        "inputs": {
            "what": parts.before.what,
            **_shape(inputs),
            "raw": parts.before.raw,
            "columns": list(parts.before.columns),
            "grid": parts.before.grid,
        },
        "outputs": [{"name": name, **_shape(each)} for name, each in answers.items()],
        "flags": list(FLAGS),
        "read": _shape(task.test.inputs),
        "clip": parts.before.clip,
        "parameters": dict(zip(student.names, map(list, student.shapes), strict=True)),
        "summary": summary(student),
    }


def _shape(tensor: Tensor) -> dict[str, Any]:
    """Shape of an example, and type."""
    return {"shape": list(tensor.shape[1:]), "dtype": str(tensor.dtype).removeprefix("torch.")}


def _tensors(parts: Parts) -> dict[str, Tensor]:
    """All that is not code: draws by name, what is fixed, units, and what is done before."""
    posterior, student = parts.posterior, parts.posterior.student
    draws = torch.cat([segment.flatten(0, 1) for segment in posterior.samples.segments])
    dtype = torch.float16 if parts.half else torch.float32
    units = {} if posterior.units is None else asdict(posterior.units)
    return {
        **{f"draws.{name}": each.to(dtype) for name, each in student.unflatten(draws).items()},
        **{f"fixed.{name}": each for name, each in student.fixed().items()},
        **{f"units.{name}": each for name, each in units.items()},
        "before.mean": parts.before.mean,
        "before.scale": parts.before.scale,
    }


def _checked(
    folder: Path, told: dict[str, Any], parts: Parts, task: Task, inputs: Tensor, wanted: Wanted
) -> dict[str, float]:
    """How far the file is from the student on test examples, which decide nothing.

    Raises:
        InputError: If it answers otherwise, unless that was asked for by ``--int8``.
    """
    exported = open_exported(folder, told)
    exact = parts.posterior.predict(parts.before(inputs), level=parts.level, point=parts.point)
    found = exported.predict(inputs)
    units = parts.posterior.units
    scale = np.ones(1) if units is None else units.scale.double().numpy()
    powers = {"total": 2, "aleatoric": 2, "epistemic": 2} if units is not None else {}
    most = max(
        float(np.abs((found[name] - getattr(exact, name)) / scale ** powers.get(name, 1)).max())
        for name in _NAMES
        if name in found
    )
    if not wanted.int8 and most > (_MOST_OFF_HALF if wanted.half else _MOST_OFF):
        raise InputError(
            f"Expected the graph to answer as the student does, but it is off by {most:.1e}. "
            "Please report this, with the network."
        )
    outcome = OUTCOMES[parts.posterior.family]
    labels = task.test.labels.numpy()
    return {
        "rows": len(inputs),
        "largest_difference": most,
        "nll": nll(outcome, found, labels),
        "nll_of_the_run": nll(
            outcome, {n: getattr(exact, n) for n in _NAMES if n in found}, labels
        ),
    }
