"""What must be true of a study beyond the types of its parts."""

from lit_transformer.errors import UserError
from lit_transformer.recipe import RecipeError
from lit_transformer.recipe.errors import quote
from lit_transformer.recipe.suggest import hint
from lit_transformer.recipe.tree import Mapping
from lit_transformer.studies.claims import Claim
from lit_transformer.studies.figures import StudyFigure
from lit_transformer.studies.levels import check_name
from lit_transformer.studies.measured import never_measured
from lit_transformer.studies.parts import TRAINED
from lit_transformer.studies.study import Study


def check_study(study: Study, node: Mapping) -> None:
    """Refuses what the types do not.

    Args:
        study: The study.
        node: The tree that it was read from.

    Raises:
        RecipeError: The first mistake.
    """

    def fail(key: str, message: str) -> RecipeError:
        return node.marks.get(key, node.mark).error(message, f"study.{key}")

    if not study.seeds:
        raise fail("seeds", "is empty; nothing would be trained")
    if len(set(study.seeds)) != len(study.seeds) or any(not 0 <= seed < 2**32 for seed in study.seeds):
        raise fail("seeds", "must be different whole numbers from 0")
    if not study.recipe:
        raise fail("recipe", "is empty; name the recipe that all cells begin with")
    if study.search is not None and study.search.measure not in study.measures:
        raise fail(
            "search", f"there is no measure {quote(study.search.measure)}{hint(study.search.measure, study.measures)}"
        )
    if study.baseline is not None and study.baseline not in study.arms:
        raise fail("baseline", f"there is no arm {quote(study.baseline)}{hint(study.baseline, study.arms, 'arms')}")
    for name, most in study.match.most.items():
        if most is not None and most < 0:
            raise fail("match", f"{name} is {most}, must not be negative; null to only print it")
    for name, arms in study.match.apart.items():
        if name not in study.match.most:
            raise fail("match", f"apart: there is no {quote(name)}{hint(name, list(study.match.most))}")
        for arm in arms:
            if arm not in study.arms:
                raise fail("match", f"apart: there is no arm {quote(arm)}{hint(arm, study.arms, 'arms')}")
    names = [TRAINED]
    for step in study.steps:
        check_name(step.name.replace(" ", "/"), node.marks["steps"], "study.steps")  # measures end names at spaces
        if step.name in names:
            raise fail("steps", f"the name {quote(step.name)} is there twice")
        if step.of not in names:
            raise fail("steps", f"{step.name}: no step {quote(step.of)} comes before it{hint(step.of, names)}")
        earlier = next((each for each in study.steps if each.name == step.of), None)
        if earlier is not None and earlier.arms and not (step.arms and set(step.arms) <= set(earlier.arms)):
            raise fail("steps", f"{step.name}: arms must be among those of {step.of}: {', '.join(earlier.arms)}")
        if earlier is not None and earlier.verb != "fit":
            raise fail("steps", f"{step.name}: {step.of} writes no checkpoint; name a step whose verb is fit")
        for arm in step.arms:
            if arm not in study.arms:
                raise fail("steps", f"{step.name}: there is no arm {quote(arm)}{hint(arm, study.arms, 'arms')}")
        if (step.verb == "probe") != (step.probe is not None):
            raise fail("steps", f"{step.name}: 'verb: probe' and the key 'probe' come together")
        names.append(step.name)
    if not study.measures:
        raise fail("measures", "is empty; there is nothing to compare by")
    for measure in study.compared:
        for number in measure.numbers:
            if number.step not in names:
                near = hint(number.step, names, "steps")
                raise fail("measures", f"{measure.name}: there is no step {quote(number.step)}{near}")
            if why := never_measured(number, study.steps):
                raise fail("measures", f"{measure.name}: {why}")
    for name in study.notes:
        if name not in [*study.measures, *names]:
            near = hint(name, [*study.measures, *names])
            raise fail("notes", f"there is no measure and no step {quote(name)}{near}")
    parts: list[Claim | StudyFigure] = [*study.claims, *study.figures]
    for part in parts:
        said = repr(part.text) if isinstance(part, Claim) else type(part).__name__
        for factor, level in getattr(part, "where", {}).items():
            if level not in study.grid.get(factor, {}):
                known_levels = [f"{f}: {name}" for f, levels in study.grid.items() for name in levels]
                found = hint(f"{factor}: {level}", known_levels, "settings")
                message = f"{said}: where: there is no setting {factor}: {quote(level)}{found}"
                raise fail("claims" if isinstance(part, Claim) else "figures", message)
        try:
            part.check(list(study.arms), list(study.measures), names)
        except UserError as error:
            raise fail("claims" if isinstance(part, Claim) else "figures", str(error)) from error
