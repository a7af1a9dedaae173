"""Parsing options the same way in every verb: exact names, one-line errors, the nearest names suggested."""

import argparse
import re
from typing import NoReturn

from lit_transformer.errors import UserError
from lit_transformer.recipe.errors import one_line, quote
from lit_transformer.recipe.suggest import hint


class OptionParser(argparse.ArgumentParser):
    """An argument parser without abbreviations, whose errors are one line and exit code 2.

    Args:
        verb: Name of the verb.
        summary: What it does, in one sentence.
        example: A command line that works, shown by ``--help``.
    """

    def __init__(self, verb: str, summary: str, example: str, **kwargs: object) -> None:
        super().__init__(
            prog=f"lit-transformer {verb}",
            description=summary,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **kwargs,  # type: ignore[arg-type]
        )

    @property
    def names(self) -> list[str]:
        """Its options, written out."""
        return [o for action in self._actions for o in action.option_strings if o.startswith("--")]

    def error(self, message: str) -> NoReturn:
        """Raises what the program prints as one line."""
        verb = self.prog.removeprefix("lit-transformer ")
        if unknown := re.match(r"unrecognized arguments: (-\S+)", message):
            name = unknown[1].partition("=")[0]
            raise UserError(f"{verb}: unknown option {quote(name)}{hint(name, self.names)}")
        if choice := re.match(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message):
            names = [name.strip(" '") for name in choice[3].split(",")]
            raise UserError(f"{verb}: unknown {choice[1].lower()} {quote(choice[2])}{hint(choice[2], names)}")
        raise UserError(f"{verb}: {one_line(message)}; lit-transformer {verb} --help shows how")
