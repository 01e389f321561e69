"""What an engine's file says to the driver: how it is built, fed, adapted and summed up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from mtbkd.inference.settings import SamplerSettings
from mtbkd.types import BatchSource, Engine, Generators, Gradient

PrecisionAt = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From modes (chain, parameter) to (which, matrix).

``which`` holds the parameters that vary, shape (chain, varying); ``matrix`` their precision, shape
(chain, varying, varying), or its diagonal, shape (chain, varying).
"""


class Problem(NamedTuple):
    """What engines are built on.

    Attributes:
        gradient: Gradient of the log posterior averaged per example.
        temperature: 1/N.
        curvature: Gives the largest curvature at each mode, summed over the examples, (chain,);
            costs passes over all of them.
        precision: Gives the precision at modes, summed over the examples.
    """

    gradient: Gradient
    temperature: float
    curvature: Callable[[], Tensor]
    precision: PrecisionAt


class Plan(NamedTuple):
    """An engine and its steps, as the driver carries them out.

    Attributes:
        engine: Its name.
        reason: Why this one, in words.
        burn_in: Steps before the first draw.
        draws: Draws of each chain.
        thinning: Steps for each draw.
        step_size: Given by the user; None to adapt.
        batch_size: Examples of a step; None for all of them.
    """

    engine: str
    reason: str
    burn_in: int
    draws: int
    thinning: int
    step_size: float | None
    batch_size: int | None = None


class Probe(NamedTuple):
    """What the step-size adaptation remembers.

    Attributes:
        direction: The stiffest found so far, shape (chain, parameter).
        limits: Curvature and gradient noise, shape (2, chain).
    """

    direction: Tensor
    limits: Tensor


class Run(NamedTuple):
    """What does not change while chains run.

    Attributes:
        engine: The kernel.
        plan: Its steps.
        settings: What the user asked for.
        gradient: Gradient of the log posterior averaged per example.
        batches: Draws a batch of so many examples for each chain.
        n_examples: N.
        generators: One for each chain.
        caution: Multiplies the adapted step sizes, shape (chain,); less than 1 where a chain ran
            hot.
    """

    engine: Engine
    plan: Plan
    settings: SamplerSettings
    gradient: Gradient
    batches: Callable[[int], BatchSource]
    n_examples: int
    generators: Generators
    caution: Tensor


Before = Callable[[Run, Any, Probe, int], tuple[Any, Probe]]
"""``(run, state, probe, steps done) -> (state, probe)``, before each update."""


def as_asked(settings: SamplerSettings) -> tuple[int, int, int]:
    """Burn-in, draws and thinning as they were set."""
    return settings.burn_in, settings.draws, settings.thinning


def minibatch(settings: SamplerSettings) -> int | None:
    """As many examples as were set."""
    return settings.batch_size


def every_example(settings: SamplerSettings) -> None:
    """All of them."""
    del settings


def unchanged(run: Run, state: Any, probe: Probe, done: int) -> tuple[Any, Probe]:
    """Nothing happens between updates."""
    del run, done
    return state, probe


def says_nothing(
    state: Any, probe: Probe, totals: dict[str, Tensor], n_updates: int
) -> dict[str, Tensor]:
    """There is nothing to tell of the chains."""
    del state, probe, totals, n_updates
    return {}


@dataclass(frozen=True)
class Method:
    """An engine as the driver sees it.

    Attributes:
        build: The engine, from the problem and the plan.
        steps: Its burn-in, draws and thinning, from the settings.
        batch_size: Examples of an update, from the settings; None for all of them.
        before: What happens before each update.
        statistics: Numbers on the chains, each of shape (chain,), from the last state, the probe,
            the sums of what the updates after burn-in told, and how many these were.
        independent: Whether draws are independent around modes, so that R-hat cannot tell how far
            they are from the posterior.
    """

    build: Callable[[Problem, Plan], Engine]
    steps: Callable[[SamplerSettings], tuple[int, int, int]] = as_asked
    batch_size: Callable[[SamplerSettings], int | None] = minibatch
    before: Before = unchanged
    statistics: Callable[[Any, Probe, dict[str, Tensor], int], dict[str, Tensor]] = says_nothing
    independent: bool = False
