"""The engines by name, and which suits a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from mtbkd.inference import csghmc, ensemble, hmc, laplace, sghmc, sgld
from mtbkd.inference.method import Method, Plan
from mtbkd.inference.settings import SamplerSettings
from mtbkd.types import InputError

_ENOUGH_TRAJECTORIES = 100

METHODS: dict[str, Method] = {
    "hmc": hmc.METHOD,
    "sghmc": sghmc.METHOD,
    "sgld": sgld.METHOD,
    "csghmc": csghmc.METHOD,
    "laplace": laplace.METHOD,
    "ensemble": ensemble.METHOD,
}


def check_noisy(settings: SamplerSettings) -> None:
    """Refuse an engine that needs the same gradient twice, which augmented images do not give.

    Raises:
        InputError: If it is `hmc`.
    """
    if settings.engine == "hmc":
        raise InputError(
            "Expected an engine that bears gradients of augmented images, which are never the "
            "same twice, but got hmc. Choose sghmc, or remove student.augment."
        )


def make_plan(
    settings: SamplerSettings,
    n_examples: int,
    curvature: Callable[[], Tensor],
    *,
    noisy: bool = False,
) -> Plan:
    """Choose the engine and count its steps.

    Args:
        settings: What was asked.
        n_examples: N.
        curvature: As in `Problem`; asked only where it decides.
        noisy: Whether gradients over all examples are noisy too: those of augmented images. All
            examples are then a batch like another.

    Raises:
        InputError: If the engine does not bear that.
    """
    if noisy:
        check_noisy(settings)
        batch_size = min(settings.batch_size or n_examples, n_examples)
        reason = "images are augmented" if settings.engine == "auto" else "it was asked for"
        engine = "sghmc" if settings.engine == "auto" else settings.engine
        return _plan(engine, reason, replace(settings, batch_size=batch_size))
    if settings.batch_size is not None and settings.batch_size >= n_examples:
        settings = replace(settings, batch_size=None)
    if settings.engine != "auto":
        return _plan(settings.engine, "it was asked for", settings)
    return _choose(settings, n_examples, curvature)


def _plan(engine: str, reason: str, settings: SamplerSettings) -> Plan:
    """The engine with the steps that it makes of the settings."""
    burn_in, draws, thinning = METHODS[engine].steps(settings)
    return Plan(
        engine=engine,
        reason=reason,
        burn_in=burn_in,
        draws=draws,
        thinning=thinning,
        step_size=settings.step_size,
        batch_size=METHODS[engine].batch_size(settings),
    )


def _choose(settings: SamplerSettings, n_examples: int, curvature: Callable[[], Tensor]) -> Plan:
    """The plan of ``auto``.

    `hmc` gets as many gradients of single examples as the settings give to `sghmc`, and is taken
    if they make enough trajectories: a trajectory of time ``pi / 2`` takes about
    ``pi / 2 * sqrt(curvature)`` steps over all examples.
    """
    batch_size = settings.batch_size or n_examples
    gradients = settings.draws * settings.thinning * batch_size
    if gradients < _ENOUGH_TRAJECTORIES * n_examples:
        reason = f"the run's steps are fewer than {_ENOUGH_TRAJECTORIES} passes over the examples"
        return _plan("sghmc", reason, settings)
    share = min(1.0, batch_size / n_examples)
    steps = math.pi / 2 * math.sqrt(float(curvature().max()))
    trajectories = int(settings.draws * settings.thinning * share / steps)
    about = f"about {trajectories} trajectories of hmc for each chain, of {steps:.0f} steps each"
    if trajectories < _ENOUGH_TRAJECTORIES:
        reason = f"the run's steps are only {about}, and {_ENOUGH_TRAJECTORIES} are wanted"
        return _plan("sghmc", reason, settings)
    plan = _plan("hmc", f"the run's steps are {about}", settings)
    burn_in, thinning = (math.ceil(share * n) for n in (plan.burn_in, plan.thinning))
    return plan._replace(burn_in=burn_in, thinning=thinning)
