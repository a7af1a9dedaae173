"""A study: a question, arms that are compared, settings and seeds under which they are."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_transformer.recipe import RecipeError
from lit_transformer.recipe.errors import one_line
from lit_transformer.recipe.shipped import description_of, find_recipe, recipes_folder
from lit_transformer.recipe.suggest import hint
from lit_transformer.recipe.tree import COMMAND_LINE, Mapping, Mark
from lit_transformer.studies.claims import Claim
from lit_transformer.studies.figures import StudyFigure
from lit_transformer.studies.parts import TRAINED, Match, Measure, Part, Step
from lit_transformer.studies.search import Search

SECTIONS = ("seed_everything", "model", "data", "trainer")
"""The keys of a recipe; in a study they are a common overlay of all its cells."""


@dataclass
class Study(Part):
    """What is asked, and what is done to answer it.

    Beside these arguments it takes ``arms`` (name: overlays and sections of a recipe) and ``grid`` (key: values, or
    name: levels that are written like arms).

    Args:
        question: What the study asks.
        recipe: What all cells begin with: a recipe, then overlays.
        baseline: The arm that the others are compared with; left out: the first.
        seeds: A cell is trained with each.
        seed_keys: Keys of the recipe that a seed is written to.
        steps: What is done with each trained cell.
        measures: What arms are compared by, by name: ``STEP METRIC``, or two of them with ``/`` or ``-`` between.
        claims: What was expected, and is held against the numbers.
        figures: What the report draws.
        match: What arms must have in common.
        notes: What a measure or a step is, in words for the report, by name.
    """

    question: str
    recipe: list[str]
    baseline: str | None = None
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    seed_keys: list[str] = field(default_factory=lambda: ["seed_everything", "data.seed"])
    steps: list[Step] = field(default_factory=list)
    measures: dict[str, str] = field(default_factory=lambda: {"loss": f"{TRAINED} val/loss"})
    claims: list[Claim] = field(default_factory=list)
    figures: list[StudyFigure] = field(default_factory=list)
    match: Match = field(default_factory=Match)
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = "study"
        self.arms: dict[str, Mapping] = {}
        self.search: Search | None = None
        """What proposes the arms, where they are not written."""
        self.grid: dict[str, dict[str, Mapping]] = {}
        self.left_out: list[dict[str, str]] = []
        self.common = Mapping(Mark(COMMAND_LINE))
        self.source: dict[str, Any] = {}
        """The study as plain data, for the report."""

    @property
    def compared(self) -> list[Measure]:
        """The measures."""
        return [Measure.parse(name, text) for name, text in self.measures.items()]


def find_study(name: str) -> tuple[Path, str]:
    """The file that ``--config name`` means: a file, a shipped study, else a shipped recipe or overlay.

    Raises:
        RecipeError: None of them.
    """
    key = name.removesuffix(".yaml").removeprefix("recipes/").removeprefix("studies/")
    shipped = recipes_folder() / "studies" / f"{key}.yaml"
    if not Path(name).is_file() and shipped.is_file():
        return shipped, f"recipes/studies/{key}.yaml"
    try:
        return find_recipe(name)
    except RecipeError as error:
        known = [each for each, _ in shipped_studies()]
        if close := hint(key, known, "studies"):
            raise RecipeError(f"no such file, no shipped study and no shipped recipe{close}", one_line(name)) from error
        raise


def shipped_studies() -> list[tuple[str, str]]:
    """Name and first comment line of every study that ships, and of every form of one."""
    root = recipes_folder() / "studies"
    return [(p.relative_to(root).with_suffix("").as_posix(), description_of(p)) for p in sorted(root.rglob("*.yaml"))]
