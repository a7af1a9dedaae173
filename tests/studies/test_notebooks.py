"""The notebooks: each becomes a real .ipynb, whose cells are executed and whose results are rendered as in a notebook."""

import ast
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "scripts" / "notebooks").glob("*.py"))


def test_there_are_twelve() -> None:
    assert len(NOTEBOOKS) == 12


def executed(source: str, names: dict[str, Any]) -> Any:
    """Runs a cell; the value of its last expression, as a notebook shows it."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path, tmp_path: Path) -> None:
    jupytext, nbformat = pytest.importorskip("jupytext"), pytest.importorskip("nbformat")
    file = tmp_path / f"{path.stem}.ipynb"
    jupytext.write(jupytext.read(path), file)
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    names: dict[str, Any] = {"__name__": "__main__"}
    pictures = []
    for source in (cell.source for cell in notebook.cells if cell.cell_type == "code"):
        value = executed(source, names)
        if hasattr(value, "_repr_svg_"):
            pictures.append(ElementTree.fromstring(value._repr_svg_()))
        elif hasattr(value, "_repr_html_"):
            assert value._repr_html_()
        elif value is not None:
            assert repr(value)
    assert pictures and all(each.tag.endswith("svg") and len(each) for each in pictures)
