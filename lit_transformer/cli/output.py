"""Results out: to a file that appears once it is whole or to standard output, and progress beside it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from lit_transformer.errors import EnvironmentFault

VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
VISIBLE |= dict.fromkeys(range(0x80, 0xA0), 0x2426)
"""Control characters as signs: what a model writes must not steer the terminal."""


class opened:  # noqa: N801 used like open()
    """Standard output, or a file that only appears once it is whole.

    Args:
        path: The file; None is standard output.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.part = None if path is None else Path(f"{path}.part")

    def __enter__(self) -> TextIO:
        if self.part is None:
            if hasattr(sys.stdout, "reconfigure"):
                sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character
            return sys.stdout
        try:
            self.file = self.part.open("w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise EnvironmentFault(f"{self.path}: cannot be written: {error.strerror}") from error
        return self.file

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self.part is not None and self.path is not None:
            self.file.close()
            if kind is None:
                self.part.replace(self.path)
            else:
                self.part.unlink(missing_ok=True)


def writer(out: TextIO) -> Callable[[str], None]:
    """Writes at once; on a terminal, control characters become visible signs."""
    terminal = out.isatty()

    def write(text: str) -> None:
        out.write(text.translate(VISIBLE) if terminal else text)
        if terminal:
            out.flush()

    return write


@contextmanager
def progress(what: str, total: int | None, out: TextIO) -> Iterator[Callable[[int], None]]:
    """A bar on standard error where that is a terminal and the results go elsewhere; gives what moves it to a place.

    Args:
        what: What is being done.
        total: Its last place; None where it is not known.
        out: Where the results go.
    """
    if out.isatty() or not sys.stderr.isatty():
        yield lambda place: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda place: bar.update(task, completed=place)
