"""Reading a recipe: bounded YAML, overlays, checks that name the line, and the closed list of what may be named."""

from lit_transformer.recipe.allow import ImportList, current_list
from lit_transformer.recipe.errors import RecipeError
from lit_transformer.recipe.overlay import merge_recipes
from lit_transformer.recipe.reader import read_recipe, read_text
from lit_transformer.recipe.shipped import ShippedRecipe, find_recipe, shipped_recipes

__all__ = [
    "ImportList", "RecipeError", "ShippedRecipe", "build", "current_list", "find_recipe", "merge_recipes",
    "read_recipe", "read_text", "shipped_recipes",
]  # fmt: skip


def __getattr__(name: str) -> object:
    # jsonargparse takes a while to import, and listing the recipes needs none of it.
    if name == "build":
        from lit_transformer.recipe.building import build

        return build
    raise AttributeError(name)
