"""The rooms import in one direction, and the lower ones do without Lightning."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lit_transformer"

RANKS = {
    "errors": 0, "dims": 0, "vocabulary": 0, "recipe": 0,
    "blocks": 1, "networks": 2,
    "generation": 3, "interop": 3, "analysis": 3, "checkpoints": 3,
    "data": 4, "training": 4, "tasks": 4,
    "studies": 5, "serving": 5,
    "cli": 6,
}  # fmt: skip
MAY_USE_LIGHTNING = {"data", "training", "tasks", "studies", "cli"}
LIGHTNING = {"lightning", "pytorch_lightning", "lightning_fabric", "torchmetrics"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path):
    """Every module that a file names in an import statement, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or room_of(p) in RANKS)


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(PACKAGE)) for p in FILES])
def test_imports_point_one_way(path):
    room = room_of(path)
    assert room in RANKS, f"{room}: give the new room its rank"
    for module in imported(path):
        top, *rest = module.split(".")
        if top == "lit_transformer" and rest and rest[0] in RANKS:
            assert RANKS[rest[0]] <= RANKS[room], f"{path}: {room} may not import {rest[0]}"
        if top in LIGHTNING:
            assert room in MAY_USE_LIGHTNING, f"{path}: {room} does without Lightning"
        if room in ("errors", "dims", "vocabulary", "recipe") and rest != ["abc"]:
            assert top not in ("torch", "numpy"), f"{path}: {room} does without torch"


BLOCKED = """
import importlib, pkgutil, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {lightning!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
for room in {rooms!r}:
    try:
        package = importlib.import_module("lit_transformer." + room)
    except ModuleNotFoundError as error:
        if error.name == "lit_transformer." + room:
            continue
        raise
    for module in pkgutil.walk_packages(getattr(package, "__path__", []), package.__name__ + "."):
        if module.name == "lit_transformer.interop.harness":
            continue  # a class of lm_eval's, which is an extra
        importlib.import_module(module.name)
"""


def test_the_lower_rooms_work_without_lightning():
    rooms = [room for room in RANKS if room not in MAY_USE_LIGHTNING and RANKS[room] < 4]
    script = BLOCKED.format(lightning=sorted(LIGHTNING), rooms=rooms)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr


def test_the_package_itself_is_light():
    script = "import sys, lit_transformer; print([m for m in ('torch', 'lightning') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]", done.stderr
