"""Progress of preparing data: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator

from lit_transformer.data.corpora import Document


def shown(documents: Iterable[Document], what: str) -> Iterator[Document]:
    """The documents, while what is done with them is shown on standard error."""
    return _bar(documents, what) if sys.stderr.isatty() else _lines(documents, what)


def _bar(documents: Iterable[Document], what: str) -> Iterator[Document]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=None, done="")
        count = size = 0
        for count, document in enumerate(documents, 1):
            yield document
            size += len(document.text)
            progress.update(task, done=amount(count, size))
        progress.update(task, total=1, completed=1, done=amount(count, size))


def _lines(documents: Iterable[Document], what: str, every: float = 15.0) -> Iterator[Document]:
    started = said = time.monotonic()
    count = size = 0
    for count, document in enumerate(documents, 1):
        yield document
        size += len(document.text)
        if time.monotonic() - said > every:
            said = time.monotonic()
            print(f"{what}: {amount(count, size)} so far, {said - started:.0f} s", file=sys.stderr, flush=True)
    print(f"{what}: {amount(count, size)}, {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


def amount(count: int, size: int) -> str:
    """Documents and characters in words."""
    return f"{count:,} document{'s' * (count != 1)}, {size / 1e6:,.1f} million characters"
