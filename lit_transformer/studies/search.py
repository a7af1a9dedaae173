"""Searching over keys of a recipe: arms are proposed one by one, by Optuna, from what the earlier ones gave."""

import json
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
    from lit_transformer.studies.results import Results
    from lit_transformer.studies.study import Study
    from lit_transformer.studies.worker import Folder


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
    """Base of the searches. What was proposed, and what was told of it, is kept in ``search.json`` of the study's
    folder: a search that was killed goes on with it, and a trial that failed and later succeeds changes no proposal.

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

    def sampler(self, seed: int) -> Any:
        """Optuna's.

        Args:
            seed: Of the next proposals; it differs with how many there were.
        """
        raise NotImplementedError

    @property
    def asked(self) -> dict[str, Any]:
        """What proposals and what is told of them depend on."""
        ranges = {key: [type(each).__name__, vars(each)] for key, each in self.ranges.items()}
        said = {"class": type(self).__name__, "measure": self.measure, "mode": self.mode, "seed": self.seed}
        result: dict[str, Any] = json.loads(json.dumps({**said, "ranges": ranges}))  # as a file gives it back
        return result


@dataclass
class RandomSearch(Search):
    """Draws evenly (Bergstra and Bengio, 2012); see ``Search``."""

    def sampler(self, seed: int) -> Any:
        """See the base class."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=seed)


@dataclass
class BayesianSearch(Search):
    """Tree-structured Parzen estimators (Bergstra et al., 2011), after ten random arms; see ``Search``."""

    def sampler(self, seed: int) -> Any:
        """See the base class."""
        from optuna.samplers import TPESampler

        return TPESampler(seed=seed)


def run_search(study: "Study", folder: "Folder", engine: "Callable[[Plan], Engine]") -> "list[Cell]":
    """Proposes and trains all arms of a search; gives the cells that failed.

    Args:
        study: A study with a search; it is given its arms.
        folder: Where everything goes.
        engine: Makes what trains the cells so far.

    Raises:
        UserError: The folder holds the trials of another search.
        Preempted: A signal stopped it, or cells are in work elsewhere; started again, it goes on.
    """
    from lit_transformer.studies.cells import Plan
    from lit_transformer.studies.results import Results
    from lit_transformer.studies.trials import Trials

    search = study.search
    assert search is not None
    trials = Trials(search, folder.path)
    while True:
        known = len(trials.trials)
        if not trials.waiting and known < search.trials:
            trials.propose(min(search.parallel, search.trials - known))
        study.arms = {_name(n): _level(each.chosen) for n, each in enumerate(trials.trials[: search.trials])}
        current = engine(Plan(study))
        current.inspect()  # refuses what cannot be trained, and the folder of another study, before anything is kept
        trials.write()
        failed = current.run()
        if current.elsewhere:
            raise Preempted("cells of this search are in work elsewhere; start it again once they are done")
        results = Results(folder.path)
        for number, trial in trials.waiting:
            trial.state, trial.value = _found(results, _name(number), search.measure)
        trials.write()
        if len(trials.trials) >= search.trials:
            return failed


def _found(results: "Results", arm: str, name: str) -> tuple[str, float | None]:
    """What is told of an arm, and its number."""
    from lit_transformer.studies.trials import FAILED, PRUNED, VALUE

    measure = results.measure(name)
    if any(results.lost(arm, setting, measure) for setting in results.settings):
        return PRUNED, None
    means = [results.mean(arm, setting, measure) for setting in results.settings]
    known = [each.value for each in means if each is not None]
    return (VALUE, sum(known) / len(known)) if known else (FAILED, None)


def _name(number: int) -> str:
    return f"trial {number:03}"


def _level(chosen: dict[str, Any]) -> Mapping:
    mark = Mark(COMMAND_LINE)
    tree = from_plain(chosen, mark)
    assert isinstance(tree, Mapping)
    return normalised(tree)
