"""Constructors stay small: beyond eight parameters (ten at the hardest) a part is missing; no switches."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lit_transformer"
CAP = 10
SWITCHES = ("use_", "enable_", "disable_", "with_", "no_")


def constructors():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] in ("cli", "recipe"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef):
                continue
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                    names = [a.arg for a in item.args.args + item.args.kwonlyargs if a.arg != "self"]
                    yield f"{path.relative_to(PACKAGE)}:{node.name}", names


ALL = dict(constructors())


@pytest.mark.parametrize("name", ALL)
def test_few_parameters_and_no_switches(name):
    names = ALL[name]
    assert len(names) <= CAP, f"{name} takes {len(names)}: {', '.join(names)}"
    assert not [n for n in names if n.startswith(SWITCHES)], name
