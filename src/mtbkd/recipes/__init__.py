"""The built-in recipes, by name."""

from __future__ import annotations

from mtbkd.recipes import deeploc, digits, synthetic
from mtbkd.recipes.base import Recipe
from mtbkd.types import InputError

RECIPES: dict[str, Recipe] = {r.name: r for r in (digits.RECIPE, deeploc.RECIPE, synthetic.RECIPE)}


def find_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        InputError: If there is none.
    """
    if name not in RECIPES:
        raise InputError(
            f"Expected one of the recipes {', '.join(RECIPES)}, but got {name!r}. "
            "See `mtbkd recipes`."
        )
    return RECIPES[name]
