"""Building an object from plain data under the closed list, without Lightning."""

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

from jsonargparse import ArgumentParser

from lit_transformer.errors import LitTransformerError
from lit_transformer.recipe.allow import ImportList, current_list
from lit_transformer.recipe.errors import RecipeError, one_line
from lit_transformer.recipe.overlay import normalised
from lit_transformer.recipe.resolve import Resolver
from lit_transformer.recipe.tree import Mapping, Mark, from_plain

NETWORK_ROOMS = ("blocks", "networks")
TRAINING_ROOMS = ("blocks", "networks", "data", "training", "tasks")


def import_rooms(rooms: Iterable[str] = NETWORK_ROOMS) -> None:
    """Imports every module of these rooms, so that their classes are known by their short names."""
    for room in rooms:
        package = importlib.import_module(f"lit_transformer.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def build(type_: Any, config: Any, imports: ImportList | None = None, source: str = "configuration") -> Any:
    """Builds what ``config`` says, as a recipe would, in a slot of type ``type_``.

    ``build(Callable[[Vocabulary], Network], checkpoint["hyper_parameters"]["network"])`` gives a network factory.

    Args:
        type_: The type of the slot: a class, a factory ``Callable[[Dims], Position]``, a union, a list of them.
        config: Plain data: the name of a class, or keys and values with a ``class_path``.
        imports: What may be named; left out: the list of the process, closed unless ``--allow`` opened it.
        source: What errors call the configuration.

    Raises:
        RecipeError: The data does not fit, or names something that is not on the list; nothing was imported for it.
    """
    import_rooms()
    resolver = Resolver(imports or current_list())
    mark = Mark(source)
    tree = from_plain(config, mark)
    full = resolver.value(normalised(tree) if isinstance(tree, Mapping) else tree, type_, "", mark)
    resolver.check()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=type_)
    try:
        return parser.instantiate(parser.parse_object({"value": full})).value
    except LitTransformerError:
        raise
    except Exception as error:
        raise RecipeError(one_line(error), source) from error


def described(part: Any) -> Any:
    """What ``build`` makes an equal part of: for parts whose attributes are their arguments, and for plain values."""
    if part is None or isinstance(part, (bool, int, float, str)):
        return part
    arguments = {name: described(value) for name, value in vars(part).items()}
    return {"class_path": f"{type(part).__module__}.{type(part).__qualname__}", "init_args": arguments}
