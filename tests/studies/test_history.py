"""What a run notes of itself is the same with and without a break."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_a_killed_run_goes_on_with_its_history(here: Path) -> None:
    from lit_transformer.cli.cells import Verbs
    from lit_transformer.training.callbacks.history import History

    verbs = Verbs()
    verbs.begin(1)
    verbs.fit(Path("base.yaml"), Path("whole"), None)
    noted = History.on_train_batch_end
    child = os.fork()
    if not child:

        def then_die(self: History, trainer: Any, *rest: Any) -> None:
            noted(self, trainer, *rest)
            if trainer.global_step == 9:  # the last checkpoint is that of step 6
                os.kill(os.getpid(), signal.SIGKILL)

        History.on_train_batch_end = then_die  # type: ignore[method-assign]
        try:
            verbs.fit(Path("base.yaml"), Path("broken"), None)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not Path("broken/history.json").exists()
    verbs.fit(Path("base.yaml"), Path("broken"), None)
    whole, broken = (json.loads(Path(run, "history.json").read_text()) for run in ("whole", "broken"))
    assert {place for place, _ in whole["curves"]["val/loss"]} == {6, 12}
    cost = whole.pop("cost"), broken.pop("cost")
    assert whole == broken and whole["targets"] > 0
    assert all(each["seconds"] > 0 and each["processor_seconds"] > 0 and each["memory"] > 0 for each in cost)
    assert [step for step, _ in cost[0]["seconds_at"]] == [6, 12]
