"""Where a run stands: its clock, its random generators, and what proves that a checkpoint's parts belong together."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_transformer.checkpoints.loading import check_tokenizer
from lit_transformer.checkpoints.parts import RUN_STATE, schedules_of
from lit_transformer.errors import UserError
from lit_transformer.training.generators import Generators

C = TypeVar("C", bound=Callback)


def find_callback(trainer: Trainer, kind: type[C]) -> C | None:
    """The trainer's callback of this kind, if it has one."""
    return next((callback for callback in trainer.callbacks if isinstance(callback, kind)), None)  # type: ignore[attr-defined]


def at_step_boundary(trainer: Trainer) -> bool:
    """Whether the batch that just ended was the last of its accumulation window: the only place to save at.

    In the middle of a window the gradients so far are in no checkpoint, and a run resumed from there loses them.
    """
    return not trainer.fit_loop._should_accumulate()


@dataclass
class Clock:
    """How far a run is, over all ranks.

    Args:
        steps: Accumulation windows, which is what schedules, savings and ``max_steps`` count.
        applied: Windows whose update was applied; the others were skipped.
        batches: Micro-batches a rank has taken.
        samples: Rows of data.
        tokens: Target tokens.
    """

    steps: int = 0
    applied: int = 0
    batches: int = 0
    samples: int = 0
    tokens: int = 0


class RunState(Callback):
    """Keeps the clock and the random generators, in every checkpoint, for every rank.

    The generators are captured at the end of each accumulation window and set again at the start of the next. So
    whatever runs in between (validation, samples for the log, the start of an epoch, a resume) leaves no trace in the
    training, and a window that was skipped draws nothing. Data must not draw from the global generators. Ranks that see
    different data draw different dropout masks, although all of them were given one seed.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.window_ids: list[Tensor] = []
        self._generators: Generators | None = None
        self._tokens: Tensor | None = None
        self._starts_window = True
        self._skipped = False
        self._resumed = False
        self._stored_optimizers: list[str] | None = None
        self._stored_rate: tuple[str, float] | None = None

    def skip_window(self) -> None:
        """Tells the clock that the current window's update is not applied."""
        self._skipped = True

    @property
    def window_skipped(self) -> bool:
        """Whether the window that just ended was skipped."""
        return self._skipped

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses the state of another optimizer.

        Raises:
            UserError: The stored state is of another kind, or of other groups of parameters.
        """
        self._check_optimizers(trainer)

    def _check_optimizers(self, trainer: Trainer) -> None:
        stored, self._stored_optimizers = self._stored_optimizers, None
        now = _optimizers(trainer)
        if stored is not None and stored != now:
            raise UserError(
                f"model.optimizer: the checkpoint's state is that of {', '.join(stored)}, the recipe's is "
                f"{', '.join(now)}; resume with the same, or begin anew from the weights with --init_from"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets the generators before the first batch is fetched, and says where the schedule is another one."""
        if self._resumed and self._generators is not None:
            self._generators.restore(trainer.strategy.root_device)
        elif self._generators is None:
            # all processes were given one seed; those that see the same data, as shards of one model, keep it
            Generators.part((trainer.distributed_sampler_kwargs or {}).get("rank", 0))
        stored, self._stored_rate = self._stored_rate, None
        now = _rate(trainer)
        if stored is not None and now is not None and stored != now and trainer.is_global_zero:
            say(
                f"another schedule: at step {trainer.global_step} {stored[0]} gave a learning rate of {stored[1]:.6g}, "
                f"{now[0]} gives {now[1]:.6g} from here on"
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sets the generators to where the last window left them."""
        if self._starts_window:
            if self._generators is None:
                self._generators = Generators.capture(trainer.strategy.root_device)
            else:
                self._generators.restore(trainer.strategy.root_device)
            self.window_ids = []
            self._skipped = False
            self._starts_window = False
        ids = getattr(batch, "ids", None)
        if ids is not None:
            self.window_ids.append(ids)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the clock on and, at the end of a window, captures the generators."""
        self.clock.batches += 1
        ids = getattr(batch, "ids", None)
        ranks: dict[str, int] = trainer.distributed_sampler_kwargs or {}  # those that share a row count it once
        self.clock.samples += (0 if ids is None else len(ids)) * ranks.get("num_replicas", trainer.world_size)
        if not at_step_boundary(trainer):
            return
        tokens = getattr(batch, "window_tokens", None)
        if isinstance(tokens, Tensor):
            # stays on the device: reading it here would make the accelerator wait at every step
            self._tokens = tokens.detach().long().clone() if self._tokens is None else self._tokens + tokens
        self.clock.steps = trainer.global_step
        if not self._skipped:
            self.clock.applied += 1
            self._generators = Generators.capture(trainer.strategy.root_device)
        self._starts_window = True

    def read_clock(self) -> Clock:
        """The clock, with the token count fetched from the device."""
        if self._tokens is not None:
            self.clock.tokens += int(self._tokens)
            self._tokens = None
        return self.clock

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the clock and the generators of all ranks."""
        generators = self._generators or Generators.capture(trainer.strategy.root_device)
        _check_loaders(checkpoint, self.clock)
        checkpoint[RUN_STATE] = {
            "step": self.clock.steps,
            "clock": asdict(self.read_clock()),
            "schedules": schedules_of(checkpoint),
            "generators": _gathered(generators.to_plain(), trainer),
            "replicas": _replicas(trainer),
            "accumulate_grad_batches": trainer.accumulate_grad_batches,
            "rate": _rate(trainer),
            "optimizers": _optimizers(trainer),
        }
        tokenizer = _tokenizer(trainer)
        if tokenizer is not None:
            checkpoint["tokenizer_sha256"] = tokenizer.fingerprint

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Takes over the clock and this rank's generators.

        Raises:
            UserError: The checkpoint was written without a run state, or with another tokenizer.
        """
        tokenizer = _tokenizer(trainer)
        if tokenizer is not None:
            check_tokenizer("the checkpoint", checkpoint, tokenizer)
        if trainer.state.fn != "fit":
            return
        state = checkpoint.get(RUN_STATE)
        if not isinstance(state, dict):
            raise UserError("the checkpoint holds no run state, so the run cannot go on from it; use --init_from")
        try:
            self._take_over(trainer, checkpoint, state)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"the checkpoint's run state is not one that this version wrote ({error})") from error

    def _take_over(self, trainer: Trainer, checkpoint: dict[str, Any], state: dict[str, Any]) -> None:
        self.clock = Clock(**state["clock"])
        _check_loaders(checkpoint, self.clock)
        batches = self.clock.batches
        if (
            batches % trainer.accumulate_grad_batches
            and state["accumulate_grad_batches"] != trainer.accumulate_grad_batches
        ):
            raise UserError(
                f"trainer.accumulate_grad_batches: {trainer.accumulate_grad_batches} does not divide the {batches} "
                f"batches done with {state['accumulate_grad_batches']}; resume with a divisor"
            )
        self._tokens = None
        self._starts_window = True
        self._resumed = True
        self._stored_optimizers = state.get("optimizers")
        if trainer.optimizers:  # a strategy that spreads the network reads checkpoints when the run has begun
            self._check_optimizers(trainer)
        rate = state.get("rate")
        self._stored_rate = None if rate is None else (str(rate[0]), float(rate[1]))
        generators = state["generators"]
        rank = trainer.global_rank
        before = len(generators), state.get("replicas", len(generators))
        now = trainer.world_size, _replicas(trainer)
        if before == now:
            self._generators = Generators.from_plain(generators[rank])
        else:
            # The order of samples does not depend on the number of ranks, dropout's draws do; and ranks that share a
            # row must draw alike, which those that saw different rows did not.
            if trainer.is_global_zero:
                say(f"resumed on {_ranks(*now)} instead of {_ranks(*before)}: dropout draws anew")
            self._generators = None


def _replicas(trainer: Trainer) -> int:
    """Groups of ranks that see different data."""
    return int((trainer.distributed_sampler_kwargs or {}).get("num_replicas", trainer.world_size))


def _ranks(number: int, replicas: int) -> str:
    return f"{number} ranks" + (f" in {replicas} group{'s' * (replicas > 1)}" if replicas != number else "")


def _check_loaders(checkpoint: dict[str, Any], clock: Clock) -> None:
    """Refuses a loader that stands elsewhere than the clock: it would repeat samples or leave some out."""
    loops = checkpoint.get("loops", {}).get("fit_loop", {})
    for state in loops.get("state_dict", {}).get("combined_loader", []):
        samples = state.get("samples") if isinstance(state, dict) else None
        if isinstance(samples, int) and samples != clock.samples:
            raise UserError(
                f"the checkpoint's parts are of different steps: its data stand after {samples} samples, its clock "
                f"after {clock.samples}; use another checkpoint"
            )


def say(message: str) -> None:
    """Tells the user, and the log of the run."""
    print(message, file=sys.stderr)
    logging.getLogger("lit_transformer.run").info(message)


def _optimizers(trainer: Trainer) -> list[str]:
    """Kind of each optimizer with the number of tensors in its groups."""
    partitions = getattr(trainer.strategy, "partitions", None)
    if partitions is not None:  # DeepSpeed's own holds flat pieces
        kinds = [(type(partitions.base).__name__, [len(group) for group in partitions.groups])]
    else:
        kinds = [
            (type(each).__name__, [len(group["params"]) for group in each.param_groups]) for each in trainer.optimizers
        ]
    return [f"{name} ({'+'.join(map(str, sizes))} tensors)" for name, sizes in kinds]


def _rate(trainer: Trainer) -> tuple[str, float] | None:
    """Name of the schedule and the learning rate of the coming update."""
    for config in trainer.lr_scheduler_configs:
        scheduler = config.scheduler
        return type(getattr(scheduler, "schedule", scheduler)).__name__, float(
            scheduler.optimizer.param_groups[0]["lr"]
        )
    return None


def _tokenizer(trainer: Trainer) -> Any:
    return getattr(getattr(trainer, "datamodule", None), "tokenizer", None)


def _gathered(state: dict[str, Any], trainer: Trainer) -> list[dict[str, Any]]:
    if trainer.world_size == 1:
        return [state]
    states: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(states, state)
    return states


@contextlib.contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Leaves the random generators as they were, whatever the block draws."""
    generators = Generators.capture(device)
    try:
        yield
    finally:
        generators.restore(device)
