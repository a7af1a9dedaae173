"""What the tasks share that predict tokens: the loss at the targets, perplexity, likelihoods of rows."""

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


class TokenPrediction(Task):
    """Base of the tasks that predict a token at each target of the batch, whatever the batch feeds the network.

    Logs ``train/loss`` (what is trained on) and, over the whole split, ``val/loss`` (nats per target, without label
    smoothing) and ``val/perplexity``.

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

    def forward(self, batch: LanguageBatch) -> Output:
        """Hidden states and logits of the batch."""
        output: Output = self.network(**batch.inputs)
        return output

    def training_step(self, batch: LanguageBatch, batch_idx: int) -> Tensor:
        """The micro-batch's part of the mean over its accumulation window."""
        output = self(batch)
        total: Tensor = self.loss(output.hidden, output.head, batch.targets)
        return self.micro_batch_loss(total, batch.target_count, batch.window_tokens, output)

    def evaluate(self, batch: LanguageBatch, split: str) -> None:
        """See the base class."""
        total, count = self.loss_sums(batch)
        if count:
            self.evaluated.update(total / count, count)

    def loss_sums(self, batch: LanguageBatch) -> tuple[Tensor, Tensor]:
        """See the base class."""
        output = self(batch)
        total: Tensor = self.likelihood(output.hidden, output.head, batch.targets)
        return total.double(), batch.target_count

    def results(self, split: str) -> dict[str, float]:
        """What the sums over the split say, by name without the split; starts anew."""
        loss = float(self.evaluated.compute())
        self.evaluated.reset()
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}

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
