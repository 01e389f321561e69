"""Features of images through any frozen model of Hugging Face: pooled, batched, kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from mtbkd.inputs.cache import cache_root
from mtbkd.inputs.frozen import FeaturesOf, through_cache
from mtbkd.inputs.kind import Encoder
from mtbkd.inputs.loading import Classes, load_frozen
from mtbkd.inputs.models import ModelFiles, Wanted, digest_of, find_model
from mtbkd.student.devices import find_device
from mtbkd.types import InputError, Report, quiet

_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_WANTED = Wanted(
    what="a model of images",
    example="google/vit-base-patch16-224-in21k",
    extra="hf",
    beside=_PROCESSORS,
    needed={"": _PROCESSORS},
    needed_as="image processor",
)
# without torchvision, so that images are read in the same way everywhere
_CLASSES = Classes(
    model="AutoModel",
    reader="AutoImageProcessor",
    what="a model of images with its processor",
    extra="hf",
    unused=("pooler.", "text_model.", "text_projection", "logit_", "visual_projection"),
    reads_with=(("backend", "pil"),),
)
_BATCH = 32
_VERSION = 1  # of how images are opened and pooled; a change makes a new cache


class Opened(Protocol):
    """Images that can be opened one by one."""

    def __len__(self) -> int:
        """How many."""
        ...

    def whole(self, row: int) -> Image.Image:
        """One of them."""
        ...

    def key(self, row: int) -> bytes:
        """A hash of its content, 32 bytes."""
        ...


def find_encoder(name: str, device: str, recorded: dict[str, Any] | None) -> Encoder:
    """A frozen model of images, from a folder or the hub; needs ``pip install 'mtbkd[hf]'``.

    Features are the mean of the last hidden states over all places of an image. Weights are read
    from safetensors only, no code of a repository is run, and nothing is read into memory before
    features are asked for that are not in the cache.

    Args:
        name: A folder that ``save_pretrained`` wrote, an id on the hub, or ``id@revision``.
        device: As PyTorch names it; ``auto`` takes an accelerator if there is one.
        recorded: As a run has it; nothing of it can be set.

    Raises:
        InputError: If files are missing or damaged, or do not say how wide features are.
    """
    del recorded
    files, place = find_model(name, _WANTED), find_device(device)
    width = _width(files)

    def key(memory: Path | None) -> str:
        parts = [digest_of(files, memory), "mean", "float32", _VERSION]
        return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]

    def encode(images: Opened, report: Report = quiet) -> Tensor:
        about = {"model": files.source, "precision": "float32", "width": width}
        features = FeaturesOf(
            name=files.source,
            width=width,
            key=key,
            about=about,
            compute=lambda rows: _compute(files, place, width, images, rows),
        )
        keys = [images.key(row) for row in range(len(images))]
        return through_cache(features, keys, cache_root(), report)

    memory = cache_root() / "digests"
    return Encoder({"kind": "image model", "model": files.source, "key": key(memory)}, encode)


def _width(files: ModelFiles) -> int:
    """Numbers in a hidden state; models of text and images have a part for each."""
    config = files.config.get("vision_config", files.config)
    sizes = config.get("hidden_sizes")
    found = sizes[-1] if isinstance(sizes, list) and sizes else None
    found = found or config.get("hidden_dim") or config.get("hidden_size")
    if not isinstance(found, int):
        raise InputError(
            f"Expected the width of the model {files.source!r} in its config.json, but it is not "
            "there. Choose another model, or name a network of your own with student.network."
        )
    return found


def _compute(
    files: ModelFiles, place: torch.device, width: int, images: Opened, rows: list[int]
) -> Iterator[tuple[list[int], Tensor]]:
    """Features in batches; images are opened as they are needed."""
    processor, model = load_frozen(files, _CLASSES, torch.float32)
    model = getattr(model, "vision_model", model).to(place)
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        opened = [images.whole(row).convert("RGB") for row in some]
        with torch.inference_mode():
            pixels = processor(images=opened, return_tensors="pt")["pixel_values"].to(place)
            hidden = model(pixel_values=pixels).last_hidden_state
            pooled = hidden.mean(1) if hidden.dim() == 3 else hidden.flatten(2).mean(2)
        if pooled.shape[1] != width:
            raise InputError(
                f"Expected {width} numbers in a hidden state of the model {files.source!r}, as its "
                f"config.json says, but got {pooled.shape[1]}. Choose another model."
            )
        yield some, pooled.float().cpu().clone()
