"""Teachers that are Hugging Face classifiers of texts or images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from mtbkd.errors import need
from mtbkd.outputs.aligned import Kind
from mtbkd.student.devices import find_device
from mtbkd.teachers.base import Teacher, fingerprint_of, from_callable
from mtbkd.teachers.torch_module import ComputeDtype, evaluator
from mtbkd.types import Family, InputError

Task = Literal["text", "image"]

_CLASSES = {
    "text": ("AutoModelForSequenceClassification", "AutoTokenizer"),
    "image": ("AutoModelForImageClassification", "AutoImageProcessor"),
}


def from_hugging_face(
    name: str,
    path_or_id: str | Path,
    *,
    task: Task = "text",
    batch_size: int = 32,
    device: str = "auto",
    precision: ComputeDtype = "float32",
    top: int | None = None,
    **declared: Any,
) -> Teacher:
    """A teacher from a folder or the hub; needs ``pip install 'mtbkd[hf]'``.

    Classes and what is predicted are those of the model's ``config.json``. Weights are read from
    safetensors files only, and no code of a repository is run.

    Args:
        name: What the teacher is called.
        path_or_id: A folder that ``save_pretrained`` wrote, or an id on the hub.
        task: ``text`` takes a list of strings (or of pairs), ``image`` a list of PIL images or
            arrays.
        batch_size: Most examples in one call of the model.
        device: As PyTorch names it; ``auto`` takes an accelerator if there is one.
        precision: Below ``float32`` the model runs under autocast.
        top: Keep only this many most probable classes.
        **declared: The other attributes of `Teacher`.

    Raises:
        InputError: If the model cannot be loaded, or lacks weights of its classifier.
    """
    if task not in _CLASSES:
        raise InputError(
            f"Expected the task of teacher {name!r} among {', '.join(_CLASSES)}, but got "
            f"{task!r}. Choose one."
        )
    model, reader = _load(name, str(path_or_id), task)
    own = [label for _, label in sorted(model.config.id2label.items())]
    family, kind = _family(model.config)
    run = evaluator(model, find_device(device), precision)
    read = _text(model, reader) if task == "text" else partial(reader, return_tensors="pt")
    place = next(model.parameters()).device

    def predict(inputs: Any) -> torch.Tensor:
        outputs = []
        for start in range(0, len(inputs), batch_size):
            batch = read(list(inputs[start : start + batch_size]))
            outputs.append(run(**batch.to(place)).logits.float())
        return torch.cat(outputs)

    declared.setdefault("fingerprint", fingerprint_of(model.state_dict()))
    declared.setdefault("parameters", sum(p.numel() for p in model.parameters()))
    declared.setdefault("family", family)
    return from_callable(name, predict, kind=kind, classes=own, top=top, **declared)


def _load(name: str, source: str, task: str) -> tuple[Any, Any]:
    transformers = need("transformers", "hf")
    if task == "image":
        need("PIL.Image", "hf")
    model_class, reader_class = (getattr(transformers, each) for each in _CLASSES[task])
    # the backend that needs neither torchvision nor an accelerator
    options = {"backend": "pil"} if task == "image" else {}
    try:
        model, info = model_class.from_pretrained(
            source, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        reader = reader_class.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # transformers raises nearly everything for what is not there
        first = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise InputError(
            f"Expected a {task} classifier with safetensors weights at {source!r} for teacher "
            f"{name!r}, but got: {first}. Check the path or id, and the network if it is an id."
        ) from None
    missing = sorted(info["missing_keys"])
    if missing:
        raise InputError(
            f"Expected all weights of a classifier at {source!r} for teacher {name!r}, but "
            f"{missing[0]!r} is missing ({len(missing)} such). Train it for the task first."
        )
    return model, reader


def _family(config: Any) -> tuple[Family, Kind]:
    if config.problem_type == "multi_label_classification":
        return "multilabel", "logits"
    if config.problem_type == "regression" or len(config.id2label) == 1:
        return "regression", "mean"
    return "classification", "logits"


def _text(model: Any, tokenizer: Any) -> Any:
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
    positions = getattr(model.config, "max_position_embeddings", None)
    longest = min(tokenizer.model_max_length, positions or tokenizer.model_max_length)
    known = longest < 10**9
    return partial(
        tokenizer,
        padding=True,
        truncation=known,
        max_length=longest if known else None,
        return_tensors="pt",
    )
