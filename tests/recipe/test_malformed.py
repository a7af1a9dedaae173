"""Generated malformed recipes: code 2, one line, no traceback, within seconds."""

from pathlib import Path

from tests.recipe.malformed import malformed
from tests.recipe.refusals import LONGEST, refusals

COUNT = 18  # two of every kind; hundreds by scripts/soak.py recipes
RECIPES = ("quickstart", "language_modeling/shakespeare_char_cpu_modern")


def test_there_are_enough() -> None:
    cases = malformed(recipes=RECIPES)
    assert len(cases) >= 500 and len({case.kind for case in cases}) == 9


def test_a_malformed_recipe_is_one_line(tmp_path: Path) -> None:
    for refusal in refusals(malformed(COUNT, recipes=RECIPES), tmp_path):
        assert refusal.proper and refusal.work < LONGEST, refusal
