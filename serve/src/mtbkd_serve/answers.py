"""Outputs of the graph as they are told: by the names of classes, flags and training examples."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mtbkd_serve.batching import Found
from mtbkd_serve.folder import Config, Examples, Student
from mtbkd_serve.reading import Refused

NEAREST = 5
_PARTS = ("total", "aleatoric", "epistemic")
_BOUNDS = {"all": -np.inf, "none": np.inf}
_MEANS = {
    "outside what was trained on": "The input is unlike the training examples.",
    "teachers disagree": "On examples that are answered alike the teachers contradict one another.",
    "teachers know more": "Its teachers would answer this better: ask one of them.",
    "truly ambiguous": "Nobody that it learned from knows better.",
}


def check_answered(found: Found) -> None:
    """Refuse inputs so far from all others that the numbers have no end.

    Raises:
        Refused: Naming the first.
    """
    values = found["mean" if "mean" in found else "probs"]
    bad = np.flatnonzero(~np.isfinite(values).all(1))
    if len(bad):
        raise Refused(
            f"Example {bad[0]}: Expected numbers that the student can compute with, but got some "
            "that are too large. Correct it."
        )


def answers_of(config: Config, found: Found, *, defer: bool) -> list[dict[str, Any]]:
    """An answer for each example.

    Args:
        config: That of the student.
        found: What the graph says.
        defer: Whether answers that the policy does not allow are held back.

    Raises:
        Refused: If there is no policy to defer by.
    """
    if defer and config.defer is None:
        raise Refused(
            "Expected a student with a policy to defer by, but this one has none. Find one with "
            "`mtbkd defer` and export the run again, or leave defer out."
        )
    alone = None if config.defer is None else _alone(config, found)
    if config.family == "regression":
        answers = _numbers(config, found)
    else:
        answers = _probabilities(config, found)
    for i, answer in enumerate(answers):
        flag = int(found["flag"][i])
        answer["flag"] = None if flag < 0 else config.flags[flag]
        answer["outside"] = _plain(found["outside"][i])
        if alone is not None:
            answer["alone"] = bool(alone[i])
            if defer and not alone[i]:
                answer["answer"] = None
    return answers


def explained(student: Student, found: Found, answers: list[dict[str, Any]]) -> None:
    """Add to answers why they are unsure, and the training examples most alike."""
    for i, answer in enumerate(answers):
        answer["why"] = None if answer["flag"] is None else _MEANS.get(answer["flag"])
        for name in ("dissent", "pool"):
            if name in found:
                answer[name] = _plain(found[name][i])
        answer["nearest"] = [
            {
                **_example(student.config, student.examples, row),
                "distance": _plain(found["distances"][i, k]),
            }
            for k, row in enumerate(found["nearest"][i, :NEAREST].tolist())
        ]


def _probabilities(config: Config, found: Found) -> list[dict[str, Any]]:
    several = config.family == "multilabel"
    names, probs = config.classes, found["probs"]
    columns = {name: _named(names, found[name]) for name in ("probs", "lower", "upper")}
    parts = {
        part: _named(names, found[part]) if several else _listed(found[part]) for part in _PARTS
    }
    reliable = _listed(found["reliable"])
    answers = []
    for i in range(len(probs)):
        said = found["labels"][i] if several else None
        answers.append(
            {
                "answer": names[int(probs[i].argmax())] if said is None else _those(names, said),
                **{name: column[i] for name, column in columns.items()},
                "set": _those(names, found["set"][i]),
                "uncertainty": {part: value[i] for part, value in parts.items()},
                "reliable": reliable[i],
            }
        )
    return answers


def _numbers(config: Config, found: Found) -> list[dict[str, Any]]:
    names = config.classes
    told = ("lower", "upper", "mean_lower", "mean_upper")
    columns = {name: _named(names, found[name]) for name in told}
    means = _named(names, found["mean"])
    parts = {part: _named(names, found[part]) for part in _PARTS}
    return [
        {
            "answer": means[i],
            **{name: column[i] for name, column in columns.items()},
            "uncertainty": {part: value[i] for part, value in parts.items()},
        }
        for i in range(len(means))
    ]


def _alone(config: Config, found: Found) -> NDArray[np.bool_]:
    """Which answers are given alone, as `mtbkd.app.run.policy.Policy.alone` says, (example,)."""
    policy = config.defer
    if policy is None or "probs" not in found:
        raise Refused("Expected answers that are right or wrong, but got numbers. Do not defer.")
    if policy.score == "max probability":
        score = found["reliable"]
    elif policy.score == "flags":
        score = found["flag"] < 0
    else:
        part = found[policy.score]
        score = -(part.sum(1) if part.ndim == 2 else part)
    above = np.array([_BOUNDS.get(str(one), one) for one in policy.above], np.float64)
    return score > (above[0] if len(above) == 1 else above[found["probs"].argmax(1)])


def _example(config: Config, examples: Examples, row: int) -> dict[str, Any]:
    """What is known of a training example."""
    label = examples.labels[row]
    if config.family == "classification":
        known: Any = None if label < 0 else config.classes[int(label)]
    elif config.family == "multilabel":
        known = None if np.isnan(label).all() else _those(config.classes, label == 1)
    else:
        known = dict(zip(config.classes, _listed(label), strict=True))
    said = {
        teacher: dict(zip(config.classes, _listed(values), strict=True))
        for teacher, values in zip(examples.teachers, examples.said[:, row], strict=True)
        if not np.isnan(values).all()
    }
    return {
        "id": examples.ids[row],
        "label": known,
        "said": said,
        **shown_example(config, examples, row),
    }


def shown_example(config: Config, examples: Examples, row: int) -> dict[str, Any]:
    """The example itself: a picture in base64, or numbers; nothing where these are features."""
    if examples.inputs is None:
        return {}
    if not config.inputs.pictures:
        return {"row": _listed(examples.inputs[row].reshape(-1))}
    pixels, data = examples.inputs[row], io.BytesIO()
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    image.save(data, "PNG")
    return {"image": base64.b64encode(data.getvalue()).decode()}


def _named(names: list[str], values: NDArray[Any]) -> list[dict[str, float | None]]:
    return [dict(zip(names, row, strict=True)) for row in _listed(values)]


def _those(names: list[str], which: NDArray[np.bool_]) -> list[str]:
    return [names[i] for i in np.flatnonzero(which)]


def _listed(values: NDArray[Any]) -> list[Any]:
    """Plain numbers; None for those that JSON does not have."""
    if np.isfinite(values).all():
        return values.tolist()
    found = values.astype(object)
    found[~np.isfinite(values)] = None
    return found.tolist()


def _plain(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
