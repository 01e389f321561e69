"""The built-in recipes, by name; a recipe is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from mtbkd.app.recipes.base import Recipe
from mtbkd.errors import InputError, did_you_mean, shown

RECIPES: dict[str, str] = {
    "digits": "digits",
    "two-sources": "two_sources",
    "overlay": "overlay",
    "diabetes": "diabetes",
    "deeploc": "deeploc.paper",
    "deeploc-multilabel": "deeploc.multilabel",
    "deeploc-backbones": "deeploc.backbones",
    "news": "news",
    "news-llm": "news_llm",
    "cifar10h": "cifar10h",
    "synthetic": "synthetic",
    "own": "own.recipe",
    "python": "python",
}
"""Where each recipe is, in this package."""


def find_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        InputError: If there is none.
    """
    if name not in RECIPES:
        raise InputError(
            f"Expected one of the recipes {', '.join(RECIPES)}, but got {shown(name)}. "
            f"See `mtbkd recipes`.{did_you_mean(name, RECIPES)}"
        )
    return import_module(f"{__name__}.{RECIPES[name]}").RECIPE
