"""Prompts and responses out of the standard library: signatures with what their docstrings say."""

import ast
import contextlib
import inspect
from collections.abc import Iterator, Sequence

from lit_transformer.data.corpora import StdlibCorpus, checked_fraction, digest
from lit_transformer.data.readers import Row
from lit_transformer.data.rows import RowCorpus

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class StdlibDocstrings(RowCorpus):
    """The functions and classes of the Python standard library that is running: no download, some 8,000 rows.

    Fields: ``prompt`` is the first line of a definition (``def loads(s, *, cls=None)``), ``response`` the first
    paragraph of its docstring. Files are split as ``StdlibCorpus`` splits them.

    Args:
        validation_fraction: Share of the files that is held out.
        longest: Most characters of a response; rows that would be longer are left out.
    """

    def __init__(self, validation_fraction: float = 0.05, longest: int = 300) -> None:
        self.validation_fraction = checked_fraction(validation_fraction)
        self.longest = longest
        self.library = StdlibCorpus(validation_fraction)

    def splits(self) -> Sequence[str]:
        """Train and validation."""
        return self.library.splits()

    def read(self, split: str) -> Iterator[Row]:
        """The definitions of a split, file by file; a signature that was there before is left out."""
        seen: set[str] = set()
        for document in self.library.documents(split):
            with contextlib.suppress(SyntaxError):  # templates and files of another version
                for node in ast.walk(ast.parse(document.text)):
                    if not isinstance(node, Definition):
                        continue
                    response = " ".join((inspect.cleandoc(ast.get_docstring(node) or "").split("\n\n"))[0].split())
                    prompt = _signature(node)
                    if (
                        response
                        and len(response) <= self.longest
                        and len(prompt) <= self.longest
                        and prompt not in seen
                    ):
                        seen.add(prompt)
                        yield Row(f"{document.name}:{node.lineno}", {"prompt": prompt, "response": response})

    def contents(self, split: str) -> str:
        """Names and texts of the files, and how long a response may be."""
        return digest("stdlib docstrings", str(self.longest), self.library.contents(split))


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, node.bases))
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    return f"def {node.name}({ast.unparse(node.args)})"
