"""When a run saves, and what it keeps."""

import math
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lit_transformer.checkpoints.writing import sweep
from lit_transformer.errors import Diverged, Preempted, UserError
from lit_transformer.networks.parts import local
from lit_transformer.training.nonfinite import NonFinite
from lit_transformer.training.run_state import at_step_boundary, find_callback
from lit_transformer.training.signals import Signals


class Checkpointing(Checkpoint):
    """Keeps ``last.ckpt`` and ``best.ckpt``, each replaced in one step, saved at step boundaries only.

    ``last.ckpt`` is written every ``every_n_steps`` optimizer steps, after every validation, when a signal asks to end,
    and at the end; ``best.ckpt`` after each validation that improves ``monitor``. Weights that are not finite are never
    saved. A save that falls on a validation comes after it; one that a signal forces before or during it makes the
    resumed run do that validation first.

    Args:
        dirpath: Folder of the two files; left out: ``checkpoints`` in the run folder (the logger's, or the trainer's
            root).
        every_n_steps: Optimizer steps between two saves.
        monitor: Logged number that decides what is best.
        mode: Whether less or more is better.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        every_n_steps: int = 500,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if every_n_steps < 1:
            raise UserError(f"every_n_steps: is {every_n_steps}, must be at least 1")
        self.dirpath = None if dirpath is None else Path(dirpath)
        self.every_n_steps = every_n_steps
        self.monitor = monitor
        self.mode = mode
        self.best_score = math.inf if mode == "min" else -math.inf
        self.best_step: int | None = None
        # Lightning's `ckpt_path="best"` reads these names; they are set only when a file is whole
        self.best_model_path = ""
        self.last_model_path = ""
        self._saved_step = 0
        self._validation_due = False

    @property
    def last_path(self) -> Path:
        """Where the latest checkpoint goes."""
        assert self.dirpath is not None, "known from setup on"
        return self.dirpath / "last.ckpt"

    @property
    def best_path(self) -> Path:
        """Where the best checkpoint goes."""
        assert self.dirpath is not None, "known from setup on"
        return self.dirpath / "best.ckpt"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the folder and clears it of what killed writers left."""
        if self.dirpath is None:
            root = next((logger.log_dir for logger in trainer.loggers if getattr(logger, "log_dir", None)), None)
            self.dirpath = Path(trainer.strategy.broadcast(str(root or trainer.default_root_dir))) / "checkpoints"
        if stage == "fit" and trainer.is_global_zero and self.dirpath.is_dir():
            sweep(self.dirpath)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses validations in the middle of an accumulation window, where nothing can be saved."""
        interval, window = trainer.val_check_interval, trainer.accumulate_grad_batches
        by_steps = getattr(trainer, "validate_every", None) is not None
        if not by_steps and isinstance(interval, int) and interval % window and trainer.enable_validation:
            raise UserError(
                f"trainer.val_check_interval: {interval} counts batches and is no multiple of "
                f"trainer.accumulate_grad_batches {window}; take {-(-interval // window) * window}"
            )
        # resumed at the end of an epoch, Lightning starts the next one without counting it
        epochs = trainer.fit_loop.epoch_progress
        if epochs.current.ready and epochs.current.ready == epochs.current.processed:  # type: ignore[attr-defined]
            epochs.increment_ready()
            epochs.increment_started()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves where this step asks for it, and stops the run where a signal did."""
        if not at_step_boundary(trainer):
            return
        step = trainer.global_step
        self._validation_due = trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
        finished = step == trainer.max_steps or trainer.should_stop
        if name := self._stop_requested(trainer):
            if not finished:
                self._stop(trainer, name)
            self._save(trainer, self.last_path)  # then its validation, if there is time for it, and a normal end
        elif not self._validation_due and (
            finished or step // self.every_n_steps > self._saved_step // self.every_n_steps
        ):
            self._save(trainer, self.last_path)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stops in the middle of a validation, which the resumed run starts again.

        On several ranks the validation ends first: their numbers of batches may differ, so they cannot agree here.
        """
        signals = find_callback(trainer, Signals)
        if (
            trainer.state.fn == "fit"
            and not trainer.sanity_checking
            and trainer.world_size == 1
            and signals is not None
            and signals.received is not None
            and at_step_boundary(trainer)
            and trainer.global_step != trainer.max_steps
        ):
            self._stop(trainer, signals.received)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the latest state, and the best before it if this is it."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or not at_step_boundary(trainer):
            return
        self._validation_due = False
        score = trainer.callback_metrics.get(self.monitor)
        if score is None and self.best_step is None:
            names = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            raise UserError(
                f"Checkpointing.monitor: {self.monitor!r} was not logged by the validation; it logged {names}"
            )
        if score is not None and self._improves(float(score)):
            self.best_score, self.best_step = float(score), trainer.global_step
            # best first: a kill between the two leaves an older last.ckpt, which comes by here again
            self._save(trainer, self.best_path)
            self.best_model_path = str(self.best_path)
        self._save(trainer, self.last_path)
        if trainer.global_step != trainer.max_steps and (name := self._stop_requested(trainer)):
            raise Preempted(self._stopped(name, trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves what no other place has saved."""
        if trainer.global_step > self._saved_step:
            self._save(trainer, self.last_path)

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"best_score": self.best_score, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the best so far."""
        self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Notes where the run goes on from."""
        self._saved_step = checkpoint["global_step"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Writes Lightning's counters so that they mean one thing: a step is done, and its validation is or is not."""
        settle_loops(checkpoint["loops"]["fit_loop"], trainer.num_training_batches, self._validation_due)

    def _improves(self, score: float) -> bool:
        return score < self.best_score if self.mode == "min" else score > self.best_score

    def _stop_requested(self, trainer: Trainer) -> str | None:
        signals = find_callback(trainer, Signals)
        return None if signals is None else signals.requested(trainer)

    def _stop(self, trainer: Trainer, name: str) -> None:
        self._save(trainer, self.last_path)
        raise Preempted(self._stopped(name, trainer))

    def _stopped(self, name: str, trainer: Trainer) -> str:
        return f"stopped by {name} at step {trainer.global_step}; {self.last_path} is written, go on with --resume"

    def _save(self, trainer: Trainer, path: Path) -> None:
        if (guard := find_callback(trainer, NonFinite)) is not None:
            guard.settle(trainer)  # it says more of what went wrong than the weights do
        _refuse_non_finite(trainer, path)
        trainer.save_checkpoint(path, weights_only=False)
        self._saved_step = trainer.global_step
        if path == self.last_path:
            self.last_model_path = str(path)


def _refuse_non_finite(trainer: Trainer, path: Path) -> None:
    """Raises ``Diverged`` where a weight is not finite: such a checkpoint would replace a good one."""
    parameters = [local(p).detach() for p in trainer.lightning_module.parameters() if p.is_floating_point()]
    parameters = [p for p in parameters if p.numel()]
    # one number a tensor: the largest magnitude is infinite or NaN as soon as one element is; a rank of a sharded
    # model may hold none, and has to take part in the reduction nevertheless
    largest = [norm.float() for norm in _largest(parameters)] if parameters else []
    finite = torch.stack([*largest, torch.zeros((), device=trainer.strategy.root_device)]).isfinite().all()
    if trainer.world_size > 1:
        finite = trainer.strategy.reduce(finite.float(), reduce_op="sum") >= trainer.world_size
    if not bool(finite):
        bad = [n for n, p in trainer.lightning_module.named_parameters() if not bool(torch.isfinite(p).all())]
        named = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
        raise Diverged(
            f"step {trainer.global_step}: weights are not finite ({named}); "
            f"not saved, {path} is as it was; lower the learning rate or clip the gradient"
        )


def _largest(parameters: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch._foreach_norm(parameters, ord=math.inf))


def settle_loops(fit_loop: dict[str, Any], batches_per_epoch: float, validation_due: bool) -> None:
    """Rewrites the counters of Lightning's loops to those of a save right after an optimizer step.

    Lightning's counters, and with them what a resumed run does first, depend on the hook in which a checkpoint was
    saved: at the end of a batch, during or after a validation, after the last step, where it counts an epoch as done
    that is not. One form for all of them makes a resume the same wherever the save was.

    Args:
        fit_loop: ``checkpoint["loops"]["fit_loop"]``, changed in place.
        batches_per_epoch: What the training loader's length is.
        validation_due: Whether this step's validation is still to be done, from its beginning.
    """
    batches = fit_loop["epoch_loop.batch_progress"]
    for part in (batches["total"], batches["current"]):
        part["completed"] = part["processed"] - 1
    epochs = fit_loop["epoch_progress"]
    if batches["current"]["ready"] < batches_per_epoch and not batches["is_last_batch"]:
        for part in (epochs["total"], epochs["current"]):
            part["processed"] = part["completed"] = part["ready"] - 1
    validation = fit_loop["epoch_loop.val_loop.batch_progress"]
    for part in (validation["total"], validation["current"]):
        done = part["completed"]
        part.update(ready=done + validation_due, started=done + validation_due, processed=done)
    if validation_due:
        validation["current"].update(ready=1, started=1, processed=0, completed=0)
        # the resumed loop counts this step twice, once for the step and once for its validation
        fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
