"""The notebooks: each runs as the plain script that it is, and converts."""

import runpy
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "scripts" / "notebooks").glob("*.py"))


def test_there_are_twelve() -> None:
    assert len(NOTEBOOKS) == 12


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path))
    capsys.readouterr()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_converts(path: Path) -> None:
    jupytext = pytest.importorskip("jupytext")
    cells = jupytext.read(path).cells
    assert {cell.cell_type for cell in cells} == {"markdown", "code"} and len(cells) >= 4
