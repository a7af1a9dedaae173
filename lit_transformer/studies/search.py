"""Searching over keys of a recipe: arms are proposed one by one, by Optuna, from what the earlier ones gave."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lit_transformer.errors import Preempted, UserError
from lit_transformer.recipe.overlay import normalised
from lit_transformer.recipe.tree import COMMAND_LINE, Mapping, Mark, from_plain
from lit_transformer.studies.parts import Part

if TYPE_CHECKING:
    from lit_transformer.studies.cells import Cell, Plan
    from lit_transformer.studies.engine import Engine
    from lit_transformer.studies.study import Study


class Range(Part):
    """Base of what a key is chosen from."""

    def distribution(self) -> Any:
        """Optuna's."""
        raise NotImplementedError


@dataclass
class Between(Range):
    """A number between two.

    Args:
        low: The least.
        high: The most.
        log: Whether evenly by logarithm.
    """

    low: float
    high: float
    log: bool = False

    def distribution(self) -> Any:
        """See the base class."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log)


@dataclass
class Whole(Range):
    """A whole number between two, ends included.

    Args:
        low: The least.
        high: The most.
        step: Distance between two.
    """

    low: int
    high: int
    step: int = 1

    def distribution(self) -> Any:
        """See the base class."""
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, step=self.step)


@dataclass
class OneOf(Range):
    """One of some values: names of classes, numbers, true or false.

    Args:
        values: The values.
    """

    values: list[Any]

    def distribution(self) -> Any:
        """See the base class."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)


@dataclass
class Search(Part):
    """Base of the searches. Proposals depend on the seed and on what was found, so a search that was killed proposes
    the same again.

    Args:
        ranges: What each key of the recipe is chosen from.
        trials: Number of arms.
        measure: What is optimised: its mean over seeds.
        mode: Whether less or more is better.
        parallel: Arms that are proposed at a time, before any of them is known.
        seed: Of the proposals.
    """

    ranges: dict[str, Range] = field(default_factory=dict)
    trials: int = 20
    measure: str = "loss"
    mode: Literal["min", "max"] = "min"
    parallel: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.ranges:
            raise UserError("study.search.ranges: is empty; name keys of the recipe, and what they are chosen from")
        if self.trials < 1 or self.parallel < 1:
            raise UserError("study.search: trials and parallel must be at least 1")

    def sampler(self) -> Any:
        """Optuna's."""
        raise NotImplementedError


@dataclass
class RandomSearch(Search):
    """Draws evenly (Bergstra and Bengio, 2012); see ``Search``."""

    def sampler(self) -> Any:
        """See the base class."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=self.seed)


@dataclass
class BayesianSearch(Search):
    """Tree-structured Parzen estimators (Bergstra et al., 2011), after ten random arms; see ``Search``."""

    def sampler(self) -> Any:
        """See the base class."""
        from optuna.samplers import TPESampler

        return TPESampler(seed=self.seed)


def run_search(study: "Study", engine: "Callable[[Plan], Engine]") -> "list[Cell]":
    """Proposes and trains all arms of a search; gives the cells that failed.

    Args:
        study: A study with a search; it is given its arms.
        engine: Makes what trains the cells so far.
    """
    import optuna

    from lit_transformer.studies.cells import Plan
    from lit_transformer.studies.results import Results

    search = study.search
    assert search is not None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction: Literal["minimize", "maximize"] = "minimize" if search.mode == "min" else "maximize"
    trials = optuna.create_study(direction=direction, sampler=search.sampler())
    distributions = {key: each.distribution() for key, each in search.ranges.items()}
    failed: list[Cell] = []
    for first in range(0, search.trials, search.parallel):
        asked = [trials.ask(distributions) for _ in range(min(search.parallel, search.trials - first))]
        for trial in asked:
            study.arms[_name(trial.number)] = _level(trial.params)
        current = engine(Plan(study))
        failed = current.run()
        if current.elsewhere:
            raise Preempted("cells of this search are in work elsewhere; start it again once they are done")
        results = Results(current.folder.path)
        for trial in asked:
            values = [results.mean(_name(trial.number), setting, results.measure(search.measure))
                      for setting in results.settings]  # fmt: skip
            known = [value.value for value in values if value is not None]
            if known:
                trials.tell(trial, sum(known) / len(known))
            else:  # diverged: no number, and no reason to try anything like it
                trials.tell(trial, state=optuna.trial.TrialState.FAIL)
    return failed


def _name(number: int) -> str:
    return f"trial {number:03}"


def _level(chosen: dict[str, Any]) -> Mapping:
    mark = Mark(COMMAND_LINE)
    tree = from_plain(chosen, mark)
    assert isinstance(tree, Mapping)
    return normalised(tree)
