"""Language modelling: predict the next token."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW
from torchmetrics import MeanMetric

from lit_transformer.blocks.loss import ChunkedCrossEntropy, TokenLoss
from lit_transformer.data.batch import LanguageBatch
from lit_transformer.networks.base import Output
from lit_transformer.tasks.base import NetworkFactory, Task
from lit_transformer.training.optimizers import OptimizerFactory
from lit_transformer.training.schedules import Constant, ScheduleFactory
from lit_transformer.vocabulary import Vocabulary


class LanguageModeling(Task):
    """Next-token prediction on text.

    Logs ``train/loss`` and, over the whole split, ``val/loss`` (nats per token), ``val/perplexity`` and
    ``val/bits_per_byte``, which does not depend on the tokenizer.

    Args:
        network: Makes the network once the data has said its vocabulary.
        vocabulary: What the data says; the CLI links it.
        max_steps: Optimizer steps of the run; the CLI links ``trainer.max_steps``.
        optimizer: Makes the optimizer of groups of parameters.
        schedule: Makes the learning-rate schedule of the number of steps.
        loss: From hidden states and targets to the sum of losses.
    """

    def __init__(
        self,
        network: NetworkFactory,
        vocabulary: Vocabulary,
        max_steps: int,
        optimizer: OptimizerFactory = AdamW,
        schedule: ScheduleFactory = Constant,
        loss: TokenLoss | None = None,
    ) -> None:
        super().__init__(network, vocabulary, max_steps, optimizer, schedule, loss)
        self.likelihood = ChunkedCrossEntropy()
        self.evaluated = MeanMetric().set_dtype(torch.float64)
        self._window_loss: Tensor | float = 0.0

    def forward(self, batch: LanguageBatch) -> Output:
        """Hidden states and logits of the batch."""
        positions = None if batch.documents is None else batch.positions  # left out, they are cheaper: one row for all
        output: Output = self.network(batch.tokens, documents=batch.documents, positions=positions)
        return output

    def training_step(self, batch: LanguageBatch, batch_idx: int) -> Tensor:
        """The micro-batch's part of the mean over its accumulation window."""
        output = self(batch)
        self.log_stats(output.stats)
        total: Tensor = self.loss(output.hidden, output.head, batch.targets)
        self._window_loss = self._window_loss + total.detach() / batch.window_tokens
        for value in output.losses.values():
            total = total + value * batch.target_count
        return self.share_of_window(total, batch.window_tokens)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """The window's last micro-batch is in: log the window's mean loss."""
        if self.log_due():
            self.log("train/loss", self._window_loss, sync_dist=True, reduce_fx="sum")
            self.log("train/learning_rate", optimizer.param_groups[0]["lr"])
        self._window_loss = 0.0

    def _evaluate(self, batch: LanguageBatch) -> None:
        output = self(batch)
        nll = self.likelihood(output.hidden, output.head, batch.targets)
        count = batch.target_count
        if count:
            self.evaluated.update(nll.double() / count, count)

    def validation_step(self, batch: LanguageBatch, batch_idx: int) -> None:
        """Adds the batch's sums."""
        self._evaluate(batch)

    def test_step(self, batch: LanguageBatch, batch_idx: int) -> None:
        """Adds the batch's sums."""
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        """Logs what the sums say."""
        self._report("val", "validation")

    def on_test_epoch_end(self) -> None:
        """Logs what the sums say."""
        self._report("test", "test")

    def _report(self, name: str, split: str) -> None:
        loss = float(self.evaluated.compute())
        self.evaluated.reset()
        values = {f"{name}/loss": loss, f"{name}/perplexity": math.exp(min(loss, 700.0))}
        statistics = getattr(getattr(self.trainer, "datamodule", None), "statistics", None)
        if statistics is not None and math.isfinite(loss):
            bytes_per_token = statistics(split).bytes / statistics(split).targets
            values[f"{name}/bits_per_byte"] = loss / math.log(2) / bytes_per_token
        self.log_dict(values, rank_zero_only=False, sync_dist=False)

    def predict_step(self, batch: LanguageBatch, batch_idx: int) -> list[dict[str, Any]]:
        """Log-likelihood of every row: its number, its number of target tokens, and their sum in nats."""
        logits = self(batch).logits.float().log_softmax(-1)
        targets = batch.targets.clamp(min=0).unsqueeze(-1)
        chosen = logits.gather(-1, targets).squeeze(-1).masked_fill(batch.targets < 0, 0.0)
        counts = (batch.targets >= 0).sum(-1)
        return [
            {"id": int(i), "tokens": int(n), "log_likelihood": float(s)}
            for i, n, s in zip(batch.ids, counts, chosen.sum(-1), strict=True)
            if i >= 0
        ]
