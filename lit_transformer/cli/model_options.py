"""The options of the verbs that use a trained model, and reading it."""

import argparse
from typing import TYPE_CHECKING

from lit_transformer.errors import UserError

if TYPE_CHECKING:
    from lit_transformer.generation import Model


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--checkpoint`` and how it is opened."""
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH", help="a checkpoint file, or a run folder: its best checkpoint")
    add("--weights", default="auto", choices=("auto", "raw", "ema"), help="ema is the average over training, raw what "
        "the last step left; auto is the average where there is one (default)")  # fmt: skip
    add("--device", default="auto", metavar="NAME", help="cpu, cuda, mps (default: the fastest there is)")
    add(
        "--allow",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="let the checkpoint name classes of this package",
    )


HELD = {"float16": "Float16", "bfloat16": "BFloat16", "int8": "Int8"}
"""Ways to hold weights, and their classes."""


def add_hold_option(parser: argparse.ArgumentParser) -> None:
    """Adds how weights are held."""
    parser.add_argument("--hold", choices=sorted(HELD), help="hold weights rounded to this: faster and smaller on a "
                        "CPU, and no longer exact (default: as they are)")  # fmt: skip


def load_model(options: argparse.Namespace, rows: int = 1) -> "Model":
    """The model that the options name.

    Args:
        options: Of the command line.
        rows: About how many texts are written together.
    """
    import lit_transformer
    from lit_transformer import generation
    from lit_transformer.recipe import ImportList

    ImportList(options.allow).enforce()
    model = lit_transformer.load(options.checkpoint, options.device, options.weights)
    if getattr(options, "hold", None) is None:
        return model
    model.check_writes()
    return model.held_as(getattr(generation, HELD[options.hold])(), rows)


def add_text_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds where the text comes from and where the result goes.

    Args:
        parser: The verb's.
        what: What a line of the input is.
    """
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument("--text", metavar="TEXT", help="one text, instead of a file")
    sources.add_argument("--input", metavar="FILE", help=f"{what}; left out or -: standard input")
    parser.add_argument("--output", metavar="FILE", help="where to write; left out: standard output")


def at_least(options: argparse.Namespace, **least: int) -> None:
    """Refuses options below their least value, where they are given.

    Raises:
        UserError: Naming the option.
    """
    for name, bound in least.items():
        value = getattr(options, name)
        if value is not None and value < bound:
            raise UserError(f"--{name}: is {value}, must be at least {bound}")
