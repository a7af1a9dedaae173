"""The command line of the training verbs, taken apart before torch is imported."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lit_transformer.errors import UserError
from lit_transformer.recipe import find_recipe, merge_recipes, read_recipe
from lit_transformer.recipe.errors import one_line, quote
from lit_transformer.recipe.reader import read_value
from lit_transformer.recipe.suggest import hint
from lit_transformer.recipe.tree import COMMAND_LINE, Mapping, Mark, Scalar

SECTIONS = ("seed_everything", "model", "data", "trainer")
"""The keys of a recipe."""

COMMAND_LINE_ONLY = ("resume", "init_from", "allow", "checkpoint", "ckpt_path", "output", "config")
"""Options that say how one run is started; a recipe that holds them is refused."""

MOVED = {"optimizer": "model.optimizer", "lr_scheduler": "model.schedule", "network": "model.network"}
"""Where keys are found that other tools have at the top."""


@dataclass
class Arguments:
    """What the user asked for.

    Args:
        verb: fit, validate, test or predict.
        configs: Recipe and overlays, as given.
        overrides: Key paths and values given as options, in order.
        allow: Packages of ``--allow``.
        resume: ``--resume``, or where from if it was given a path.
        init_from: Checkpoint whose weights to start from.
        checkpoint: Checkpoint file or run folder to evaluate.
        output: Run folder, instead of ``runs/<recipe>/<time>``.
        print_config: Print the resolved recipe and stop.
    """

    verb: str
    configs: list[str] = field(default_factory=list)
    overrides: list[tuple[str, str]] = field(default_factory=list)
    allow: list[str] = field(default_factory=list)
    resume: bool | str = False
    init_from: str | None = None
    checkpoint: str | None = None
    output: str | None = None
    print_config: bool = False

    @property
    def name(self) -> str:
        """The recipe's name: what its runs are filed under."""
        return Path(self.configs[0]).stem if self.configs else "run"

    def recipe(self) -> Mapping:
        """Recipe, overlays and options as one tree.

        Raises:
            RecipeError: One of them cannot be read, or holds a key that belongs elsewhere.
        """
        trees = [read_recipe(*find_recipe(name)) for name in self.configs]
        typed = Mapping(Mark(COMMAND_LINE))
        merged = merge_recipes([*trees, typed])
        for key, text in self.overrides:
            one = Mapping(Mark(COMMAND_LINE))
            one.put(key, read_value(text), Mark(COMMAND_LINE))
            merged = merge_recipes([merged, one])
        for key, node in merged.items.items():
            mark = merged.marks[key]
            if key in COMMAND_LINE_ONLY:
                raise mark.error(f"belongs on the command line, as --{key}; remove it from the recipe", key)
            if key not in SECTIONS:
                moved = f"; it belongs into {MOVED[key]}" if key in MOVED else hint(key, SECTIONS)
                raise mark.error(f"unknown key{moved}", one_line(key, 100))
            if isinstance(node, Scalar) and node.value is None and key != "seed_everything":
                raise mark.error("is empty", key)
        return merged


_VALUED = {
    "fit": ("--config", "--allow", "--init_from", "--output", "--ckpt_path"),
    "validate": ("--config", "--allow", "--checkpoint", "--ckpt_path"),
    "test": ("--config", "--allow", "--checkpoint", "--ckpt_path"),
    "predict": ("--config", "--allow", "--checkpoint", "--ckpt_path", "--output"),
    "study": (),
}
_FLAGS = {"fit": ("--resume", "--print_config"), "validate": (), "test": (), "predict": (), "study": ()}


def parse_arguments(verb: str, argv: list[str], taken: Sequence[str] = ()) -> Arguments:
    """Takes a command line apart; options are never abbreviated.

    Args:
        verb: The verb.
        argv: Its words.
        taken: Options of the verb that somebody else took out of them, to suggest.

    Raises:
        UserError: An unknown option, a missing value, or a word that belongs to no option.
    """
    result = Arguments(verb)
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "-c" or word.startswith("-c="):
            word = "--config" + word[2:]
        if not word.startswith("--") or word == "--":
            raise UserError(f"{verb}: unexpected {quote(word)}; recipes come with --config, values with --key value")
        name, equals, value = word.partition("=")
        if name in _FLAGS[verb] and not (name == "--resume" and equals):
            if equals:
                raise UserError(f"{verb}: {name} takes no value")
            _set_flag(result, name)
            continue
        if not (name in _VALUED[verb] or name == "--resume" and "--resume" in _FLAGS[verb] or _is_key(name)):
            options = [*_VALUED[verb], *_FLAGS[verb], *taken, "--help", *(f"--{section}" for section in SECTIONS)]
            raise UserError(f"{verb}: unknown option {quote(name)}{hint(name.split('.')[0], options)}")
        if not equals:
            if not rest or (rest[0].startswith("--") and len(rest[0]) > 2):
                raise UserError(f"{verb}: {one_line(name, 100)} needs a value")
            value = rest.pop(0)
        _set_value(result, name, value)
    return result


def _is_key(name: str) -> bool:
    return name[2:].removesuffix("+").split(".")[0] in SECTIONS


def _set_flag(result: Arguments, name: str) -> None:
    if name == "--resume":
        result.resume = True
    else:
        result.print_config = True


def _set_value(result: Arguments, name: str, value: str) -> None:
    if name == "--config":
        result.configs.append(value)
    elif name == "--allow":
        result.allow.append(value)
    elif name == "--resume" or (name == "--ckpt_path" and result.verb == "fit"):
        result.resume = value
    elif name in ("--checkpoint", "--ckpt_path"):
        result.checkpoint = value
    elif name in ("--init_from", "--output"):
        setattr(result, name[2:], value)
    else:
        result.overrides.append((name[2:], value))
