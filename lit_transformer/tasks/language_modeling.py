"""Language modelling: predict the next token."""

import math

from lightning.pytorch import Callback

from lit_transformer.tasks.prediction import TokenPrediction
from lit_transformer.training.callbacks.position_loss import PositionLoss


class LanguageModeling(TokenPrediction):
    """Next-token prediction on text, by a decoder or, where the data names a prefix, a prefix-LM.

    Logs ``train/loss`` and, over the whole split, ``val/loss`` (nats per token), ``val/perplexity`` and
    ``val/bits_per_byte``, which does not depend on the tokenizer; where a token is less than a word, also
    ``val/word_perplexity``, per word between white space (the end of a text is paid for by its words). At each
    validation the loss by position in the context is drawn (``PositionLoss``).
    """

    def configure_callbacks(self) -> list[Callback]:
        """See the base class."""
        return [*super().configure_callbacks(), PositionLoss()]

    def results(self, split: str) -> dict[str, float]:
        """See the base class."""
        values = super().results(split)
        statistics = getattr(getattr(self.trainer, "datamodule", None), "statistics", None)
        if statistics is not None and math.isfinite(values["loss"]):
            known = statistics(split)
            values["bits_per_byte"] = values["loss"] / math.log(2) / (known.bytes / known.targets)
            if known.words and not self.trainer.datamodule.tokenizer.counts_words:  # type: ignore[attr-defined]
                values["word_perplexity"] = math.exp(min(values["loss"] * known.targets / known.words, 700.0))
        return values
