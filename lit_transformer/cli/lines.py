"""Lines of text in, from a file or standard input: numbered, decoded one by one, a few at a time in memory."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lit_transformer.cli.prompts import checked
from lit_transformer.errors import EnvironmentFault, UserError


@dataclass(frozen=True)
class Line:
    """A line of the input.

    Args:
        number: From 0.
        text: Without its end.
        where: What an error calls it.
        end: Bytes of the input up to its end.
    """

    number: int
    text: str
    where: str
    end: int


class Lines:
    """The lines of ``--input``, or ``--text`` as the only one.

    A line ends with a line feed (and a carriage return before it) alone: other signs that Unicode calls ends of lines
    are text, or lines of two files would not belong together.

    Args:
        options: Of the command line, with ``text`` and ``input``.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.only: str | None = None if options.text is None else checked(options.text, "--text")
        self.path: str | None = None if options.input == "-" else options.input
        self.name = "standard input" if self.path is None else self.path
        self.size: int | None = None
        if self.only is None and self.path is not None:
            with self._open():
                pass  # a missing file is said before the model is read
            if Path(self.path).is_file():
                self.size = os.path.getsize(self.path)

    @property
    def asks(self) -> bool:
        """Whether somebody types the lines: each is answered at once."""
        return self.only is None and self.path is None and sys.stdin is not None and sys.stdin.isatty()

    def __iter__(self) -> Iterator[Line]:
        if self.only is not None:
            yield Line(0, self.only, "--text", len(self.only.encode()))
            return
        end = 0
        with self._open() as file:
            for number, data in enumerate(file):
                end += len(data)
                where = f"{self.name}, line {number + 1}"
                try:
                    text = data.decode("utf-8-sig" if number == 0 else "utf-8")
                except UnicodeDecodeError as error:
                    raise UserError(f"{where}: is not UTF-8 text (byte {error.start} of the line)") from None
                yield Line(number, text.removesuffix("\n").removesuffix("\r"), where, end)

    def blocks(self, size: int) -> Iterator[list[Line]]:
        """The lines, some at a time."""
        block: list[Line] = []
        for line in self:
            block.append(line)
            if len(block) >= (1 if self.asks else size):
                yield block
                block = []
        if block:
            yield block

    def _open(self) -> AbstractContextManager[BinaryIO]:
        if self.path is None:
            if sys.stdin is None:
                raise UserError("there is no standard input; name a file by --input")
            return nullcontext(sys.stdin.buffer)
        try:
            return Path(self.path).open("rb")
        except FileNotFoundError:
            raise UserError(f"{self.path}: no such file") from None
        except IsADirectoryError:
            raise UserError(f"{self.path}: is a folder; --input takes a file") from None
        except OSError as error:
            raise EnvironmentFault(f"{self.path}: could not be read: {error.strerror}") from error
