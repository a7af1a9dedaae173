"""The attention explorer: what one or two networks did with a text, as one HTML file that needs nothing else."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from lit_transformer import __version__
from lit_transformer.analysis.additions import ADDITIONS
from lit_transformer.analysis.chapter import Chapter
from lit_transformer.analysis.chapters import Progress, chapters, unheard
from lit_transformer.analysis.compact import Store
from lit_transformer.analysis.reading import Reading
from lit_transformer.errors import EnvironmentFault, UserError

SCRIPTS = (
    "vendor/preact.js", "vendor/preact-hooks.js", "vendor/htm.js", "data.js", "colours.js", "canvas.js", "overview.js",
    "links.js", "matrix.js", "pair.js", "paths.js", "steps.js", "export.js", "app.js",
)  # fmt: skip

SHORT = 128
"""Longest text whose page takes at most ``SHORT_LIMIT`` bytes, where nothing else is said."""
SHORT_LIMIT, LONG_LIMIT = 5_000_000, 20_000_000


def digest(text: str) -> str:
    """What a page's security policy knows a script or a style by."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@dataclass
class Explorer:
    """The page.

    Args:
        index: What is in it, for JSON.
        store: Its blobs.
        left_out: What there was no room for, as lines to be read.
    """

    index: dict[str, Any]
    store: Store
    left_out: list[str] = field(default_factory=list)

    def pieces(self) -> Iterator[str]:
        """The page, piece by piece."""
        page = files("lit_transformer.analysis").joinpath("page")
        script = "\n".join(page.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS)
        style = page.joinpath("style.css").read_text(encoding="utf-8")
        shell = page.joinpath("page.html").read_text(encoding="utf-8")
        before, after = shell.split("<!-- data -->")
        yield (
            before.replace("{{digest}}", digest(script))
            .replace("{{style_digest}}", digest(style))
            .replace("{{style}}", style)
            .replace("{{title}}", escape(self.index["title"]))
        )
        index = json.dumps(self.index, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        # No text can end the element: JSON knows another way to write the sign that would.
        yield '<script type="application/json" id="index">' + index.replace("<", "\\u003c") + "</script>\n"
        for element in self.store.elements():
            yield element + "\n"
        yield after.replace("{{script}}", script)

    def html(self) -> str:
        """The page as one text."""
        return "".join(self.pieces())

    def save(self, path: str | Path) -> int:
        """Writes the page; gives its size in bytes.

        Raises:
            EnvironmentFault: The file cannot be written.
        """
        path = Path(path)
        part = path.with_name(f"{path.name}.part")
        try:
            with part.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(self.pieces())
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise EnvironmentFault(f"{path}: cannot be written: {error.strerror or error}") from error
        return path.stat().st_size

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(self.html())}" width="100%" height="820" style="border:0"></iframe>'


def explore(
    readings: Sequence[Reading],
    heads: Sequence[str] = (),
    megabytes: float | None = None,
    title: str = "Attention explorer",
    heard: Progress = unheard,
) -> Explorer:
    """The explorer of one text as one network read it, or as two did.

    Args:
        readings: One, or two to be put side by side.
        heads: Heads that are kept in full whatever their size, as "3.5": head 5 of layer 3, counted from 0 ("stack" and
            names of parts before it where there are several: "cross 3.5").
        megabytes: Most megabytes of the page; left out: 5 for texts of up to 128 tokens, else 20.
        title: Of the page.
        heard: Is told what is being done.

    Raises:
        UserError: A head that there is not, or more than two readings.
    """
    if not 1 <= len(readings) <= 2:
        raise UserError(f"the explorer shows one or two readings, not {len(readings)}")
    longest = max(max(len(each.words), len(each.source_words)) for each in readings)
    limit = int(megabytes * 1e6) if megabytes is not None else SHORT_LIMIT if longest <= SHORT else LONG_LIMIT
    store = Store(0)
    models, steps = [], []
    for reading in readings:
        built = chapters(reading, heads, store, heard)
        models.append(built)
        steps.append(_additions(built, heard))
    index = {"title": title, "version": __version__, "models": [built[0].model for built in models]}
    overhead = 150_000 + len(json.dumps(index, ensure_ascii=False).encode())
    left_out: list[str] = []
    for number, additions in enumerate(steps):
        store.limit = (limit - overhead) * (number + 1) // len(steps)
        for addition in additions:
            addition()
        left_out += [f"{readings[number].name}: {line}" for chapter in models[number] for line in chapter.left_out()]
    index["leftOut"] = left_out
    return Explorer(index, store, left_out)


def _additions(built: Sequence[Chapter], heard: Progress) -> Iterator[Callable[[], None]]:
    """What is added as long as there is room, the most telling first."""
    for addition in ADDITIONS:
        for chapter in built:
            yield from addition(chapter, heard)
