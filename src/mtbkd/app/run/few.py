"""The few draws of a run that answer in place of all: made once, kept beside all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mtbkd.distillation.posterior import Posterior
from mtbkd.files import load_tensors, save_tensors
from mtbkd.types import InputError

FEW = "few.safetensors"
_N_FEW = 8


def keep_few(posterior: Posterior, inputs: Tensor, out: Path) -> Posterior:
    """The posterior with few draws, chosen by its training inputs where that was not done yet."""
    if not (out / FEW).exists():
        few = posterior.thin(_N_FEW, inputs).samples
        save_tensors(out / FEW, {"draws": torch.cat(few.segments, 1)})
    return recall_few(posterior, out)


def recall_few(posterior: Posterior, out: Path, n_draws: int | None = None) -> Posterior:
    """The posterior with the few draws that a run keeps.

    Args:
        posterior: With all of them.
        out: The run directory.
        n_draws: How many are wanted; None for as many as there are.

    Raises:
        InputError: If there are none, or as many as are wanted are not kept.
    """
    if not (out / FEW).exists():
        raise InputError(
            f"Expected {FEW} in {out}, the few draws that answer in place of all, but it is "
            f"missing. Make it with `mtbkd evaluate {out}`."
        )
    draws = load_tensors(out / FEW)["draws"]
    kept = draws.shape[0] * draws.shape[1]
    if n_draws is not None and n_draws != kept:
        raise InputError(
            f"Expected --draws {kept}, as many as {out} keeps in place of all, but got {n_draws}. "
            "Correct it, or leave it out to use all draws."
        )
    return replace(posterior, samples=replace(posterior.samples, segments=(draws,)))
