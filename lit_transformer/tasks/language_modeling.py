"""Language modelling: predict the next token."""

import math

from lit_transformer.tasks.prediction import TokenPrediction


class LanguageModeling(TokenPrediction):
    """Next-token prediction on text, by a decoder or, where the data names a prefix, a prefix-LM.

    Logs ``train/loss`` and, over the whole split, ``val/loss`` (nats per token), ``val/perplexity`` and
    ``val/bits_per_byte``, which does not depend on the tokenizer.
    """

    def results(self, split: str) -> dict[str, float]:
        """See the base class."""
        values = super().results(split)
        statistics = getattr(getattr(self.trainer, "datamodule", None), "statistics", None)
        if statistics is not None and math.isfinite(values["loss"]):
            bytes_per_token = statistics(split).bytes / statistics(split).targets
            values["bits_per_byte"] = values["loss"] / math.log(2) / bytes_per_token
        return values
