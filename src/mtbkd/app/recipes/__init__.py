"""The built-in recipes, by name."""

from __future__ import annotations

from mtbkd.app.recipes import diabetes, digits, overlay, synthetic
from mtbkd.app.recipes.base import Recipe
from mtbkd.app.recipes.deeploc import backbones, multilabel, paper
from mtbkd.app.recipes.own import recipe
from mtbkd.types import InputError

_PARTS = (digits, overlay, diabetes, paper, multilabel, backbones, synthetic, recipe)
RECIPES: dict[str, Recipe] = {part.RECIPE.name: part.RECIPE for part in _PARTS}


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
