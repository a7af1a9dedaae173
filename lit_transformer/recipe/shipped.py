"""The recipes that come with the package, by name."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from lit_transformer.recipe.errors import RecipeError, one_line, quote
from lit_transformer.recipe.suggest import hint

NOT_RECIPES = ("overlays", "studies")


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe or overlay of the package.

    Args:
        name: What ``--config`` takes, such as ``quickstart`` or ``overlays/tiny``.
        path: The file.
        description: Its first comment line.
    """

    name: str
    path: Path
    description: str

    @property
    def is_overlay(self) -> bool:
        """Whether it changes another recipe, and does not run by itself."""
        return self.name.startswith("overlays/")


def recipes_folder() -> Path:
    """The folder of the shipped recipes: inside the package once installed, beside it in a checkout."""
    package = Path(str(files("lit_transformer")))
    for folder in (package / "recipes", package.parent / "recipes"):
        if folder.is_dir():
            return folder
    raise RecipeError("the shipped recipes are missing; install the package again", str(package / "recipes"))


def shipped_recipes() -> list[ShippedRecipe]:
    """All of them: complete recipes first, then overlays, by name."""
    found = [
        ShippedRecipe(path.relative_to(root).with_suffix("").as_posix(), path, description_of(path))
        for root in [recipes_folder()]
        for path in sorted(root.rglob("*.yaml"))
        if not path.relative_to(root).as_posix().startswith("studies/")
    ]
    return sorted(found, key=lambda recipe: (recipe.is_overlay, recipe.name))


def description_of(path: Path) -> str:
    """The first comment line of a recipe."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for _, line in zip(range(20), file, strict=False):
            if line.startswith("#"):
                return one_line(line.lstrip("# "), 100)
            if line.strip():
                break
    return ""


def find_recipe(name: str) -> tuple[Path, str]:
    """The file that ``--config name`` means, and how errors call it: a file of that name, else a shipped recipe.

    Raises:
        RecipeError: Neither.
    """
    if not name or "\0" in name:
        raise RecipeError(f"--config {quote(name)}: expected a file or the name of a shipped recipe")
    path = Path(name)
    if "://" in name:
        raise RecipeError("recipes are read from files only; download it and look at it first", one_line(name, 200))
    if path.is_file() or os.path.isabs(name):
        return path, name
    shipped = {recipe.name: recipe for recipe in shipped_recipes()}
    key = name.removesuffix(".yaml").removeprefix("recipes/")
    if key in shipped:
        return shipped[key].path, f"recipes/{key}.yaml"
    ends = [n for n in shipped if n.rpartition("/")[2] == key]
    if len(ends) == 1:
        return shipped[ends[0]].path, f"recipes/{ends[0]}.yaml"
    if path.exists():
        raise RecipeError("is a folder, expected a YAML file", name)
    candidates = [*shipped, *_yaml_beside(path)]
    raise RecipeError(f"no such file and no shipped recipe{hint(key, candidates, 'shipped')}", one_line(name, 200))


def _yaml_beside(path: Path) -> Iterator[str]:
    try:
        yield from (str(p) for _, p in zip(range(200), path.parent.glob("*.yaml"), strict=False))
    except OSError:
        return
