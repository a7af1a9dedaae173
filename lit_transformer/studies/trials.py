"""What a search has proposed and what came of it, kept so that it proposes the same when it is started again."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lit_transformer.errors import UserError
from lit_transformer.studies.search import Search
from lit_transformer.studies.worker import write_whole

VALUE, PRUNED, FAILED = "value", "pruned", "failed"
"""What is told of a trial: its mean; that it diverged or is not finite, which is worse than all values; that there is
no number."""


@dataclass
class Told:
    """A trial of a search.

    Args:
        chosen: The value of each key.
        state: What was told of it; empty: nothing yet.
        value: The number that was told.
    """

    chosen: dict[str, Any]
    state: str = ""
    value: float | None = None

    def fits(self, search: Search) -> bool:
        """Whether it may be one of a search's."""
        number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        return set(self.chosen) == set(search.ranges) and (
            number if self.state == VALUE else self.state in ("", PRUNED, FAILED)
        )


class Trials:
    """What a search has proposed and what was told of it: ``search.json`` of the study's folder.

    Args:
        search: The search.
        folder: The study's folder.

    Raises:
        UserError: What is there is of another search, or cannot be read.
    """

    def __init__(self, search: Search, folder: Path) -> None:
        self.search = search
        self.path = folder / "search.json"
        self.trials: list[Told] = []
        try:
            said = json.loads(self.path.read_text(encoding="utf-8"))
            known, self.trials = said["search"], [Told(**each) for each in said["trials"]]
            differ = sorted(key for key, value in search.asked.items() if known.get(key) != value)
            if not differ and not all(each.fits(search) for each in self.trials):
                raise ValueError("it holds a trial that this search cannot have proposed")
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path}: cannot be read ({error}); name another --output") from error
        if differ:
            raise UserError(
                f"{self.path}: its trials were proposed with another study.search ({', '.join(differ)}) than the "
                "study's now; name another --output, or put it back"
            )

    @property
    def waiting(self) -> list[tuple[int, Told]]:
        """Numbers and trials of which nothing was told yet."""
        return [(n, each) for n, each in enumerate(self.trials[: self.search.trials]) if not each.state]

    def propose(self, count: int) -> None:
        """Adds proposals, from what was told of those before."""
        import numpy as np
        import optuna
        from optuna.trial import TrialState, create_trial

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        direction: Literal["minimize", "maximize"] = "minimize" if self.search.mode == "min" else "maximize"
        # Drawn anew for each batch: what is proposed next does not depend on how often the search was started.
        seed = int(np.random.SeedSequence([self.search.seed, len(self.trials)]).generate_state(1)[0])
        study = optuna.create_study(direction=direction, sampler=self.search.sampler(seed))
        distributions = {key: each.distribution() for key, each in self.search.ranges.items()}
        states = {VALUE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL}
        for told in self.trials:
            study.add_trial(create_trial(
                state=states[told.state], value=told.value, params=told.chosen, distributions=distributions
            ))  # fmt: skip
        self.trials += [Told(study.ask(distributions).params) for _ in range(count)]

    def write(self) -> None:
        """Writes the file."""
        said = {"search": self.search.asked, "trials": [asdict(each) for each in self.trials]}
        write_whole(self.path, json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
