"""How the posterior is explored: what a user sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from mtbkd.types import outside, refuse

EngineName = Literal["auto", "hmc", "sghmc", "sgld", "csghmc", "laplace", "ensemble"]


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
        batch_size: Examples per step and chain, None for all; ``hmc`` takes all.
        step_size: None to adapt.
        tolerance: Relative error that the discretisation, and minibatch noise, may each add.
    """

    engine: EngineName = "auto"
    burn_in: int = 1000
    draws: int = 50
    thinning: int = 50
    batch_size: int | None = 256
    step_size: float | None = None
    tolerance: float = 0.05

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check ranges."""
        step_size = 1.0 if self.step_size is None else self.step_size
        batch_size = 1 if self.batch_size is None else self.batch_size
        names = get_args(EngineName)
        unknown = (
            f"Expected engine to be one of {', '.join(names)}, but got {self.engine!r}. Choose one."
        )
        refuse(
            *([] if self.engine in names else [unknown]),
            *outside("burn_in", self.burn_in, 1e7, whole=True),
            *outside("draws", self.draws, 1e6, whole=True),
            *outside("thinning", self.thinning, 1e7, whole=True),
            *outside("batch_size", batch_size, whole=True),
            *outside("step_size", step_size, 1e3),
            *outside("tolerance", self.tolerance, 1.0),
        )
