"""The studies that ship: each can be read, planned and checked against what its recipes name."""

import pytest

from lit_transformer.cli.main import main
from lit_transformer.recipe import shipped_recipes
from lit_transformer.studies.cells import Plan
from lit_transformer.studies.reading import read_study
from lit_transformer.studies.study import shipped_studies

NAMES = [name for name, _ in shipped_studies()]
FORMS = [[name] if "/" not in name else [name.rpartition("/")[2], name] for name in NAMES]


def test_the_studies_are_there_in_both_forms(capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"positions", "norms", "attention", "architectures", "ablation", "scaling"}
    whole |= {"positions_tasks", "positions_masked", "architectures_denoising", "architectures_classification"}
    assert whole | {f"full/{name}" for name in whole} <= set(NAMES)
    assert all(text for _, text in shipped_studies())
    assert main(["study", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in NAMES)
    assert not {recipe.name for recipe in shipped_recipes()} & set(NAMES)  # no recipe that fit takes


@pytest.mark.parametrize("configs", FORMS, ids=lambda configs: configs[-1])
def test_every_recipe_of_a_study_is_valid(configs: list[str]) -> None:
    from lit_transformer.cli.resolution import Resolution

    study = read_study(configs)
    if study.search is not None:
        from lit_transformer.studies.search import _level, _name

        study.arms = {_name(0): _level({key: _first(each) for key, each in study.search.ranges.items()})}
    plan = Plan(study)
    for cell in plan.groups:
        if cell.setting != plan.groups[0].setting and cell.arm != plan.groups[0].arm:
            continue  # every arm under one setting, one arm under every setting
        Resolution(plan.recipe(cell))
        for step in plan.steps(cell):
            Resolution(plan.step_recipe(cell, step))


def _first(range_: object) -> object:
    values = vars(range_)
    return values["values"][0] if "values" in values else values["low"]
