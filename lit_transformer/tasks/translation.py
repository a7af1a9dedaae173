"""Translation: predict the target, given the source."""

import html
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from lit_transformer.analysis.alignment import alignment_picture, cross_attention
from lit_transformer.blocks.loss import TokenLoss
from lit_transformer.data.batch import LanguageBatch
from lit_transformer.data.tokenizer import Tokenizer
from lit_transformer.data.translation import Example, TranslationData
from lit_transformer.generation.translation import Translator
from lit_transformer.tasks.base import NetworkFactory
from lit_transformer.tasks.decoding import BeamSearch
from lit_transformer.tasks.objectives import Objective
from lit_transformer.tasks.prediction import TokenPrediction
from lit_transformer.tasks.text_metrics import Bleu, Chrf, TextMetric
from lit_transformer.training.gathering import gathered, is_spread, over_heads
from lit_transformer.training.optimizers import OptimizerFactory
from lit_transformer.training.schedules import Constant, ScheduleFactory
from lit_transformer.vocabulary import Vocabulary

SHOWN = 8
"""Number of translations that are written to the logger at each validation."""


class Translation(TokenPrediction):
    """From one language to another, by an encoder-decoder, a prefix-LM or a decoder; the data decides the layout.

    Logs, beside losses, the scores of translations of the whole split (``val/bleu``, ``val/chrf``), some translations,
    and, where there is cross-attention, a picture of what the first one looked at.

    Args:
        network: Makes the network once the data has said its vocabulary.
        vocabulary: What the data says; the CLI links it.
        max_steps: Optimizer steps of the run; the CLI links ``trainer.max_steps``.
        optimizer: Makes the optimizer of groups of parameters.
        schedule: Makes the learning-rate schedule of the number of steps.
        loss: From hidden states and targets to the sum of losses.
        objective: What is minimised; left out: the loss of one pass. RDrop makes two.
        decoding: How splits are translated.
        metrics: What translations are scored by; left out: corpus BLEU and chrF.
    """

    writes_text = False  # it shows its own translations

    def __init__(
        self,
        network: NetworkFactory,
        vocabulary: Vocabulary,
        max_steps: int,
        optimizer: OptimizerFactory = AdamW,
        schedule: ScheduleFactory = Constant,
        loss: TokenLoss | None = None,
        objective: Objective | None = None,
        decoding: BeamSearch | None = None,
        metrics: list[TextMetric] | None = None,
    ) -> None:
        super().__init__(network, vocabulary, max_steps, optimizer, schedule, loss)
        self.objective = objective or Objective()
        self.decoding = decoding or BeamSearch()
        self.metrics: list[TextMetric] = [Bleu(), Chrf()] if metrics is None else metrics
        self.translations: dict[int, tuple[Example, str]] = {}
        """What was translated in the evaluation under way, by row."""

    @property
    def data(self) -> TranslationData:
        """The data module, which knows the texts behind the rows."""
        return cast(TranslationData, self.trainer.datamodule)  # type: ignore[attr-defined]

    def training_step(self, batch: LanguageBatch, batch_idx: int) -> Tensor:
        """The micro-batch's part of the mean over its accumulation window."""
        total, output = self.objective(self, batch)
        return self.micro_batch_loss(total, batch.target_count, batch.window_tokens, output)

    def translate(self, batch: LanguageBatch, split: str) -> list[tuple[int, Example, str, float]]:
        """Row, pair, translation and its score, of every row that is no padding."""
        rows = [int(row) for row in batch.ids if row >= 0]
        data = self.data
        end = data.source_tokenizer.eos_id
        assert end is not None  # or there would be no such data
        translator = Translator(self.network, data.tokenizer, data.source_tokenizer, end)
        examples = [data.example(split, row) for row in rows]
        with gathered(self.network):  # by all ranks, also those without rows
            done = self.decoding(translator, [example.prompt for example in examples]) if rows else []
        return [
            (row, example, completion.text, float(completion.score or 0.0))
            for row, example, completion in zip(rows, examples, done, strict=True)
        ]

    def evaluate(self, batch: LanguageBatch, split: str) -> None:
        """Adds the batch's sums and translations."""
        super().evaluate(batch, split)
        self.translations |= {row: (example, text) for row, example, text, _ in self.translate(batch, split)}

    def results(self, split: str) -> dict[str, float]:
        """See the base class; scores are of all rows that were evaluated, on all ranks."""
        values = super().results(split)
        parts = [self.translations]
        if self.trainer.world_size > 1:
            parts = [{} for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(parts, self.translations)
        together = dict(sorted((row, done) for part in parts for row, done in part.items()))
        self.translations = {}
        references = [example.reference for example, _ in together.values()]
        hypotheses = [text for _, text in together.values()]
        values |= {metric.name: metric(hypotheses, references) for metric in self.metrics}
        if together and (self.trainer.is_global_zero or is_spread(self.network)):
            self._show(split, list(together.values())[:SHOWN])
        return values

    def _show(self, split: str, done: list[tuple[Example, str]]) -> None:
        """Writes translations and a picture; a network that is spread over ranks is run by all of them."""
        lines = [line for example, text in done for line in (example.source, example.reference, text, "")]
        lines += [metric.signature for metric in self.metrics]
        # As a code block and escaped: TensorBoard renders Markdown, and would fetch an image that a text names.
        shown = "\n".join("    " + html.escape(line) for line in lines)
        picture = self._alignment(split)
        for logger in self.loggers if self.trainer.is_global_zero else ():
            experiment: Any = getattr(logger, "experiment", None)
            if hasattr(experiment, "add_text"):
                experiment.add_text(f"{split}/translations", shown, self.global_step)
            if picture is not None and hasattr(experiment, "add_image"):
                experiment.add_image(f"{split}/alignment", picture, self.global_step)

    def _alignment(self, split: str) -> Tensor | None:
        """A picture of the last layer's attention to the source, heads averaged, on the first pair of the split."""
        batch = self.data.rows(split, False).batch(np.array([0])).to(self.device)
        weights = cross_attention(self.network, batch.inputs)
        if weights is None:
            return None
        weights = over_heads(weights[-1, 0].mean(0), self.device_mesh)
        source, target = self.data.rows(split, False).pair(0)
        columns = [*map(partial(_name, self.data.source_tokenizer), source.tolist()), "<end>"]
        rows = [*map(partial(_name, self.data.tokenizer), target.tolist()), "<end>"]
        return alignment_picture(weights[: len(rows), : len(columns)], rows, columns)

    def predict_step(self, batch: LanguageBatch, batch_idx: int) -> list[dict[str, Any]]:
        """The translation of every row: its number, source, translation and score."""
        split = "test" if self.data.has_split("test") else "validation"
        return [
            {"id": row, "source": example.source, "translation": text, "score": score}
            for row, example, text, score in self.translate(batch, split)
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the sources' tokenizer where they have one of their own."""
        super().on_save_checkpoint(checkpoint)
        own = getattr(getattr(self.trainer, "datamodule", None), "source_tokenizer", None)
        if own is not None and self.vocabulary.source_size is not None:
            checkpoint["source_tokenizer"] = own.to_json()


def _name(tokenizer: Tokenizer, token: int) -> str:
    return str(tokenizer.backend.id_to_token(token))
