"""The engines by name, what each needs from the driver, and which suits a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from mtbkd.inference import csghmc, ensemble, hmc, laplace, sghmc, sgld
from mtbkd.types import Engine, Gradient, check_positive

_ENOUGH_TRAJECTORIES = 100


@dataclass(frozen=True)
class SamplerSettings:
    """How the posterior is explored from each mode.

    A step is one gradient, whichever the engine.

    Attributes:
        engine: One of `METHODS`; ``auto`` is ``hmc`` where the run's steps are enough for it to
            converge, else ``sghmc``. ``laplace`` has neither burn-in nor thinning, and
            ``ensemble`` one draw for each chain.
        burn_in: Steps dropped at the start, in which the engine adapts.
        draws: Kept from each chain.
        thinning: Steps for each draw kept; a cycle of ``csghmc``.
        batch_size: Examples per step and chain; ``hmc`` takes all.
        step_size: None to adapt.
        tolerance: Relative error that the discretisation, and minibatch noise, may each add.
    """

    engine: Literal["auto", "hmc", "sghmc", "sgld", "csghmc", "laplace", "ensemble"] = "auto"
    burn_in: int = 1000
    draws: int = 50
    thinning: int = 50
    batch_size: int = 256
    step_size: float | None = None
    tolerance: float = 0.05

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check ranges."""
        check_positive(
            burn_in=self.burn_in,
            draws=self.draws,
            thinning=self.thinning,
            batch_size=self.batch_size,
            step_size=1.0 if self.step_size is None else self.step_size,
            tolerance=self.tolerance,
        )


class Problem(NamedTuple):
    """What engines are built on.

    Attributes:
        gradient: Of the log posterior averaged per example.
        temperature: 1/N.
        precision: Of the log posterior at given positions, summed over the examples.
    """

    gradient: Gradient
    temperature: float
    precision: laplace.PrecisionAt


class Plan(NamedTuple):
    """An engine and its steps, as the driver carries them out.

    Attributes:
        engine: Its name.
        reason: Why this one, in words.
        burn_in: Steps before the first draw.
        draws: For each chain.
        thinning: Steps for each draw.
        step_size: Given by the user; None to adapt.
    """

    engine: str
    reason: str
    burn_in: int
    draws: int
    thinning: int
    step_size: float | None


@dataclass(frozen=True)
class Method:
    """An engine as the driver sees it.

    Attributes:
        build: From the problem, the plan and the step sizes to start from, shape (chain,).
        stable_step_size: The largest step size within the tolerance, from curvature and gradient
            noise; None for an engine that finds its own.
        every_example: Whether each step needs all examples.
        cyclical: Whether draws are the ends of cycles, the first of which starts after burn-in.
        independent: Whether each step is a draw of its own, so that there is neither burn-in nor
            thinning.
        most_draws: Of a chain that differ; None for any number.
    """

    build: Callable[[Problem, Plan, Tensor], Engine]
    stable_step_size: Callable[..., Tensor] | None = None
    every_example: bool = False
    cyclical: bool = False
    independent: bool = False
    most_draws: int | None = None


METHODS: dict[str, Method] = {
    "hmc": Method(
        lambda p, plan, steps: hmc.build(
            p.gradient,
            temperature=p.temperature,
            step_size=steps,
            burn_in=plan.burn_in if plan.step_size is None else 0,
        ),
        every_example=True,
    ),
    "sghmc": Method(
        lambda p, plan, steps: sghmc.build(p.gradient, temperature=p.temperature, step_size=steps),
        sghmc.stable_step_size,
    ),
    "sgld": Method(
        lambda p, plan, steps: sgld.build(p.gradient, temperature=p.temperature, step_size=steps),
        sgld.stable_step_size,
    ),
    "csghmc": Method(
        lambda p, plan, steps: csghmc.build(
            p.gradient, temperature=p.temperature, step_size=steps, cycle=plan.thinning
        ),
        csghmc.stable_step_size,
        cyclical=True,
    ),
    "laplace": Method(
        lambda p, plan, steps: laplace.build(p.precision, temperature=1.0),
        every_example=True,
        independent=True,
    ),
    "ensemble": Method(
        lambda p, plan, steps: ensemble.build(),
        every_example=True,
        independent=True,
        most_draws=1,
    ),
}


def make_plan(settings: SamplerSettings, n_examples: int, curvature: float) -> Plan:
    """Choose the engine and count its steps.

    ``auto`` gives `hmc` as many gradients of single examples as the settings give to `sghmc`, and
    takes it if they make enough trajectories: a trajectory of time ``pi / 2`` takes about
    ``pi / 2 * sqrt(curvature)`` steps over all examples.

    Args:
        settings: What was asked.
        n_examples: N.
        curvature: The largest of the log posterior at the modes.
    """
    asked = (settings.burn_in, settings.draws, settings.thinning)
    if settings.engine != "auto" and METHODS[settings.engine].independent:
        most = METHODS[settings.engine].most_draws
        draws = settings.draws if most is None else min(settings.draws, most)
        return Plan(settings.engine, "it was asked for", 0, draws, 1, None)
    if settings.engine != "auto":
        return Plan(settings.engine, "it was asked for", *asked, settings.step_size)
    if hopeless_for_hmc(settings, n_examples):
        reason = f"the run's steps are fewer than {_ENOUGH_TRAJECTORIES} passes over the examples"
        return Plan("sghmc", reason, *asked, settings.step_size)
    share = min(1.0, settings.batch_size / n_examples)
    steps = math.pi / 2 * math.sqrt(curvature)
    trajectories = int(settings.draws * settings.thinning * share / steps)
    about = f"about {trajectories} trajectories of hmc for each chain, of {steps:.0f} steps each"
    if trajectories < _ENOUGH_TRAJECTORIES:
        reason = f"the run's steps are only {about}, and {_ENOUGH_TRAJECTORIES} are wanted"
        return Plan("sghmc", reason, *asked, settings.step_size)
    burn_in, thinning = (math.ceil(share * n) for n in (settings.burn_in, settings.thinning))
    reason = f"the run's steps are {about}"
    return Plan("hmc", reason, burn_in, settings.draws, thinning, settings.step_size)


def hopeless_for_hmc(settings: SamplerSettings, n_examples: int) -> bool:
    """Whether ``auto`` need not look at the curvature, which takes passes over all examples."""
    gradients = settings.draws * settings.thinning * settings.batch_size
    return settings.engine == "auto" and gradients < _ENOUGH_TRAJECTORIES * n_examples
