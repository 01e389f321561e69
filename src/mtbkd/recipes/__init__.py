"""The built-in recipes, by name."""

from __future__ import annotations

from mtbkd.recipes import (
    deeploc,
    deeploc_backbones,
    diabetes,
    digits,
    overlay,
    own,
    synthetic,
)
from mtbkd.recipes.base import Recipe
from mtbkd.types import InputError

RECIPES: dict[str, Recipe] = {
    part.RECIPE.name: part.RECIPE
    for part in (digits, overlay, diabetes, deeploc, deeploc_backbones, synthetic, own)
}


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
