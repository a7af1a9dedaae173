"""``lit-transformer recipes``: what is shipped, and what a recipe says."""

import argparse
import sys
from pathlib import Path

from lit_transformer.cli.options import OptionParser
from lit_transformer.errors import EXIT_DONE, EXIT_USER, EnvironmentFault, UserError
from lit_transformer.recipe import RecipeError, find_recipe, read_recipe, shipped_recipes

NAMES = "the name of a shipped recipe or overlay, or a file"


def run(argv: list[str]) -> int:
    """Runs the verb."""
    parser = OptionParser(
        "recipes", "List, show, copy and validate recipes.", "lit-transformer recipes copy quickstart my_recipes"
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_ActionParser)
    actions.add_parser("list", help="the shipped recipes and overlays").set_defaults(do=list_recipes)
    show = actions.add_parser("show", help="print a recipe")
    show.add_argument("recipe", nargs="+", metavar="RECIPE", help=f"{NAMES}; several: overlays, in order")
    show.add_argument("--resolved", action="store_true", help="with all overlays merged and all defaults filled in")
    show.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help="your package that it may name")
    show.set_defaults(do=show_recipe)
    copy = actions.add_parser("copy", help="write a shipped recipe to a file of yours; nothing is overwritten")
    copy.add_argument("recipe", metavar="RECIPE", help=NAMES)
    copy.add_argument("target", metavar="TARGET", nargs="?", default=".", help="folder or file (default: here)")
    copy.set_defaults(do=copy_recipe)
    validate = actions.add_parser("validate", help="check a recipe without running it; every mistake is a line")
    validate.add_argument("recipe", nargs="+", metavar="RECIPE", help=f"{NAMES}; several: overlays, in order")
    validate.add_argument("--allow", action="append", default=[], metavar="PACKAGE", help="a package of yours to name")
    validate.set_defaults(do=validate_recipe)
    options = parser.parse_args(argv)
    return int(options.do(options))


class _ActionParser(OptionParser):
    def __init__(self, prog: str, **kwargs: object) -> None:
        action = prog.rpartition(" ")[2]
        rest = {"list": "", "copy": " quickstart mine.yaml"}.get(action, " quickstart overlays/tiny")
        extra = " --resolved" if action == "show" else ""
        summary = str(kwargs.pop("help", "")) or {
            "list": "The shipped recipes and overlays, one a line.",
            "show": "Print a recipe.",
            "copy": "Write a shipped recipe to a file of yours; nothing is overwritten.",
            "validate": "Check a recipe without running it; every mistake is a line.",
        }.get(action, "")
        super().__init__(f"recipes {action}", summary, f"lit-transformer recipes {action}{rest}{extra}", **kwargs)


def list_recipes(options: argparse.Namespace) -> int:
    """Prints the names with their descriptions."""
    recipes = shipped_recipes()
    width = max((len(recipe.name) for recipe in recipes), default=0)
    for title, wanted in (("recipes, complete:", False), ("overlays, to go on top with a further --config:", True)):
        print(title)
        for recipe in recipes:
            if recipe.is_overlay == wanted:
                print(f"  {recipe.name:<{width}}  {recipe.description}".rstrip())
    return EXIT_DONE


def show_recipe(options: argparse.Namespace) -> int:
    """Prints recipes as they are written, or resolved."""
    if options.resolved:
        from lit_transformer.cli.training import resolved_yaml

        print(resolved_yaml(options.recipe, options.allow), end="")
        return EXIT_DONE
    for name in options.recipe:
        path, shown = find_recipe(name)
        read_recipe(path, shown)
        sys.stdout.write(path.read_text(encoding="utf-8-sig"))
    return EXIT_DONE


def copy_recipe(options: argparse.Namespace) -> int:
    """Writes a recipe to a file that does not exist yet."""
    source, _ = find_recipe(options.recipe)
    target = Path(options.target)
    if target.is_dir() or options.target.endswith("/") or not target.suffix:
        target = target / source.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as file:
            file.write(source.read_bytes())
    except FileExistsError as error:
        raise UserError(f"{target}: exists and is not overwritten; name another target") from error
    except OSError as error:
        raise EnvironmentFault(f"{target}: cannot be written: {error.strerror or error}") from error
    print(target)
    return EXIT_DONE


def validate_recipe(options: argparse.Namespace) -> int:
    """Checks a recipe with its overlays, and prints every mistake."""
    from lit_transformer.cli.training import resolved_yaml

    try:
        resolved_yaml(options.recipe, options.allow)
    except RecipeError as error:
        for each in [error, *error.others]:
            print(f"lit-transformer: {each}", file=sys.stderr)
        return EXIT_USER
    print(f"{' + '.join(options.recipe)}: valid")
    return EXIT_DONE
