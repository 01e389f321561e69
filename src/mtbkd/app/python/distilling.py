"""`mtbkd.distill`: the library's, whose posterior remembers what it learned from."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import wraps
from typing import Any

from mtbkd.app.config.run import RunConfig
from mtbkd.app.config.student import GIVEN
from mtbkd.app.python.posterior import Learned, Posterior, at_its_temperature, with_learned
from mtbkd.app.recipes import python as own
from mtbkd.app.recipes.base import Task
from mtbkd.distillation import distill as inner

_SIGNATURE = inspect.signature(inner.distill)


@wraps(inner.distill)
def distill(*arguments: Any, **settings: Any) -> Posterior:
    """As the library's."""
    bound = _SIGNATURE.bind(*arguments, **settings)
    bound.apply_defaults()
    given = bound.arguments
    found = inner.distill(*bound.args, **bound.kwargs)
    if given["teachers"] is None:
        return with_learned(found, None)
    budget, sampled = given["budget"], given["sampled"]
    config = RunConfig.model_validate(
        {
            "recipe": own.RECIPE.name,
            "seed": given["seed"],
            "prior": given["prior"],
            "student": {
                "hidden": [],
                "weight_scale": given["weight_scale"],
                "network": GIVEN,
                "augment": given["augment"],
                "sampled": [sampled] if isinstance(sampled, str) else list(sampled),
            },
            "map": given["modes"],
            "sampler": given["sampler"],
            "chains": given["chains"],
            "budget": None if budget is None else f"{budget:g} s",
            "calibration": "learn" if given["learn_calibration"] else "hold",
            "device": given["device"],
        }
    )
    data, calibration = given["data"], given["calibration"]
    task = Task(
        name="posterior",
        train=data,
        calibration=data.subset([]) if calibration is None else calibration,
        test=data.subset([]),
        teacher_data=None,
        drawn=str,
    )
    recipe = replace(own.RECIPE, network=lambda *_: given["network"])
    learned = Learned(task, given["teachers"], config, recipe)
    posterior = with_learned(found, learned)
    return at_its_temperature(posterior) if given["learn_calibration"] else posterior
