"""The built-in recipes, by name."""

from __future__ import annotations

from mtbkd.recipes import (
    deeploc,
    deeploc_backbones,
    deeploc_multilabel,
    diabetes,
    digits,
    overlay,
    own,
    synthetic,
)
from mtbkd.recipes.base import Recipe
from mtbkd.types import InputError

_PARTS = (
    digits,
    overlay,
    diabetes,
    deeploc,
    deeploc_multilabel,
    deeploc_backbones,
    synthetic,
    own,
)
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
