"""Lightning's Trainer with one clock: optimizer steps."""

import os
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from lit_transformer.errors import UserError
from lit_transformer.training.callbacks.ranks import Ranks, of_exchange, unreachable
from lit_transformer.training.run_state import find_callback

MEETING = 600.0
"""Seconds in which processes must have started: on a busy machine, or many, they come minutes apart."""

_STEPS = "runs are counted in optimizer steps"


class Trainer(pl.Trainer):
    """Lightning's Trainer, driven by optimizer steps alone; every other argument is Lightning's.

    Epochs appear nowhere: data is repeated until ``max_steps``. Samplers are the data's own, so that the order of the
    samples does not depend on the number of processes.

    Args:
        max_steps: Optimizer steps of the whole run.
        validate_every: Optimizer steps between two validations; left out: a tenth of the run. The last step is always
            followed by one.
        rank_timeout: Seconds that ranks wait for one that does not answer, before the run ends and names it.
    """

    RECIPE_HINTS = {
        "max_epochs": f"{_STEPS}, use max_steps",
        "min_epochs": f"{_STEPS}, use max_steps",
        "min_steps": f"{_STEPS}, use max_steps",
        "val_check_interval": "use validate_every, in optimizer steps",
        "check_val_every_n_epoch": "use validate_every, in optimizer steps",
        "use_distributed_sampler": "the data shares itself out between processes",
        "reload_dataloaders_every_n_epochs": "the data repeats by itself",
        "default_root_dir": "use --output on the command line",
    }
    """What to say to users of a bare Trainer; read where a recipe is checked."""

    def __init__(
        self, max_steps: int, validate_every: int | None = None, rank_timeout: float = 600.0, **kwargs: Any
    ) -> None:
        if max_steps < 1:
            raise UserError(f"trainer.max_steps: is {max_steps}, must be at least 1")
        if validate_every is not None and validate_every < 1:
            raise UserError(
                f"trainer.validate_every: is {validate_every}, must be at least 1; limit_val_batches: 0 turns it off"
            )
        if not rank_timeout > 0:
            raise UserError(f"trainer.rank_timeout: is {rank_timeout}, must be more than 0 seconds")
        accumulate = kwargs.get("accumulate_grad_batches", 1)
        if accumulate is not None and accumulate < 1:
            raise UserError(f"trainer.accumulate_grad_batches: is {accumulate}, must be at least 1")
        devices, cores = kwargs.get("devices"), os.cpu_count() or 1
        if str(devices).isdigit() and int(str(devices)) > max(32, cores):
            raise UserError(f"trainer.devices: is {devices}, more than this machine can have ({cores} CPU cores)")
        if isinstance(devices, list) and kwargs.get("accelerator") == "cpu":
            raise UserError(f"trainer.devices: is {devices}; CPUs have no numbers, say how many processes")
        super().__init__(
            max_steps=max_steps,
            max_epochs=-1,
            min_epochs=None,
            min_steps=None,
            val_check_interval=max_steps,  # any whole number: the loop below decides
            check_val_every_n_epoch=None,
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=0,
            **kwargs,
        )
        check_launcher(self)
        self.validate_every = validate_every or max(1, max_steps // 10)
        self.rank_timeout = rank_timeout
        if hasattr(self.strategy, "_timeout"):  # whatever the strategy; until the ranks have met, then it is theirs
            self.strategy._timeout = timedelta(seconds=max(rank_timeout, MEETING))
        self._prepare_data, self._data_connector.prepare_data = self._data_connector.prepare_data, self._prepare  # type: ignore[method-assign]
        self.fit_loop.epoch_loop = StepLoop(self, max_steps=max_steps)

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Lightning's, whose error is that of the rank that failed.

        Raises:
            RankFailed: Another one did.
            EnvironmentFault: The others are not to be reached.
        """
        try:
            super().fit(*args, **kwargs)
        except Exception as error:
            failed = getattr(error, "consequence_of", None)
            if failed is None and self.world_size > 1 and of_exchange(error):
                failed = unreachable(self.global_rank, error)
            if failed is None:
                raise
            raise failed from error

    def _prepare(self) -> None:
        """Preparing data may take hours, in which the other ranks wait: they watch that one from here on."""
        watch = find_callback(self, Ranks)
        if watch is not None and self.state.fn == "fit":
            watch.start(self)
        self._prepare_data()


def check_launcher(trainer: pl.Trainer) -> None:
    """Refuses a number of processes that is not the recipe's: each would train by itself, into the same folder.

    Raises:
        UserError: torchrun or srun has started more or fewer.
    """
    wanted = trainer.num_devices * trainer.num_nodes
    if os.environ.get("TORCHELASTIC_RUN_ID"):
        launcher, started = "torchrun", os.environ.get("WORLD_SIZE", "1")
    else:
        launcher, started = "srun", os.environ.get("SLURM_STEP_NUM_TASKS", "")
        if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):  # Lightning does not count on srun there
            return
    if started.isdigit() and int(started) != wanted:
        raise UserError(
            f"trainer.devices x trainer.num_nodes: {trainer.num_devices} x {trainer.num_nodes} is not the number of "
            f"processes that {launcher} started, {started}; set the keys and trainer.strategy to fit, or start {wanted}"
        )


class StepLoop(_TrainingEpochLoop):
    """Lightning's training loop, validating by optimizer steps; its own rule counts batches."""

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        trainer = self.trainer
        assert isinstance(trainer, Trainer)
        if not self._should_check_val_epoch():
            return False
        if trainer.should_stop and trainer.fit_loop._can_stop_early:
            return True
        if self._should_accumulate():
            return False
        return self.global_step % trainer.validate_every == 0 or self.global_step == self.max_steps
