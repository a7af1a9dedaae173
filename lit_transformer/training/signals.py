"""Being told to stop: by the cluster, by the user."""

import signal
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from lit_transformer.errors import Preempted

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Signals(Callback):
    """SIGTERM, SIGINT and SIGUSR1 only set a flag; the run stops at the next step boundary, with a checkpoint.

    Work done inside a signal handler fails now and then (it can hit the middle of a save). Lightning's handlers are
    replaced while ``fit`` runs, its SLURM ones too: it would end the run in the middle of an accumulation window, with
    exit code 0. A second SIGINT stops at once.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._previous: dict[int, Any] = {}
        self._begun = False

    @property
    def received(self) -> str | None:
        """Name of the signal that asked this process to stop."""
        return None if self._received is None else signal.Signals(self._received).name

    def requested(self, trainer: Trainer) -> str | None:
        """Name of the signal, once any rank has received one. To be called by all ranks at the same place."""
        number = self._received or 0
        if trainer.world_size > 1:
            agreed = torch.tensor(number, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(agreed, op=torch.distributed.ReduceOp.MAX)
            number = int(agreed)
        return signal.Signals(number).name if number else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes over the signals."""
        if stage != "fit" or threading.current_thread() is not threading.main_thread():
            return
        self._received = None
        self._begun = False
        if not self._previous:
            self._previous = {number: signal.getsignal(number) for number in STOPPING}
        self._install()
        # Lightning registers its own after this hook, around ours
        trainer._signal_connector = _Silent(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives the signals back."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives the signals back."""
        self._restore()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stops before the first step of this process; later the checkpoint callback stops, once it has saved."""
        if self._first_batch(trainer) and (name := self.requested(trainer)):
            raise Preempted(f"stopped by {name} before a step was done; nothing was written")

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Stops during the check of the validation loop that comes before training."""
        if trainer.sanity_checking and trainer.world_size == 1 and self.received:
            raise Preempted(f"stopped by {self.received} before a step was done; nothing was written")

    def _first_batch(self, trainer: Trainer) -> bool:
        if self._begun:
            return False
        self._begun = True
        return True

    def _install(self) -> None:
        for number in STOPPING:
            signal.signal(number, self._note)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            if handler is not None:
                signal.signal(number, handler)
        self._previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._received == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = number


class _Silent(_SignalConnector):
    """Lightning's signal handling, registering nothing."""

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False

    def teardown(self) -> None:
        pass
