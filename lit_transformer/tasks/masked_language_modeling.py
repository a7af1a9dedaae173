"""Masked language modelling: guess the hidden tokens."""

import torch
from torch.optim import AdamW
from torchmetrics import MeanMetric

from lit_transformer.blocks.loss import ChunkedCrossEntropy, TokenLoss
from lit_transformer.blocks.target_loss import AtTargets
from lit_transformer.data.batch import IGNORED, LanguageBatch
from lit_transformer.tasks.base import NetworkFactory
from lit_transformer.tasks.prediction import TokenPrediction
from lit_transformer.training.optimizers import OptimizerFactory
from lit_transformer.training.schedules import Constant, ScheduleFactory
from lit_transformer.vocabulary import Vocabulary


class MaskedLanguageModeling(TokenPrediction):
    """Guesses hidden tokens from both sides (BERT: Devlin et al., 2019, arXiv:1810.04805), for an encoder.

    Logs ``train/loss`` and, over the whole split with the same tokens hidden each time, ``val/loss`` (nats per hidden
    token), ``val/perplexity`` and ``val/accuracy`` (share guessed right).

    Args:
        network: Makes the network once the data has said its vocabulary.
        vocabulary: What the data says; the CLI links it.
        max_steps: Optimizer steps of the run; the CLI links ``trainer.max_steps``.
        optimizer: Makes the optimizer of groups of parameters.
        schedule: Makes the learning-rate schedule of the number of steps.
        loss: From hidden states and targets to the sum of losses; it gets the hidden tokens alone.
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
        super().__init__(network, vocabulary, max_steps, optimizer, schedule, AtTargets(loss))
        self.likelihood = ChunkedCrossEntropy()
        self.guessed = MeanMetric().set_dtype(torch.float64)

    def evaluate(self, batch: LanguageBatch, split: str) -> None:
        """See the base class."""
        output = self(batch)
        keep = batch.targets != IGNORED
        count = int(keep.sum())
        if not count:
            keep[0, 0] = True  # ZeRO-3 gathers the head's weights: all ranks call it, also one whose rows are padding
        hidden, targets = output.hidden[keep].unsqueeze(0), batch.targets[keep].unsqueeze(0)
        nll = self.likelihood(hidden, output.head, targets)
        right = (output.head(hidden).argmax(-1) == targets).double().mean()
        if count:
            self.evaluated.update(nll.double() / count, count)
            self.guessed.update(right, count)

    def results(self, split: str) -> dict[str, float]:
        """See the base class."""
        accuracy = float(self.guessed.compute())
        self.guessed.reset()
        return {**super().results(split), "accuracy": accuracy}
