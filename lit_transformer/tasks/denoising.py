"""Denoising: write what is missing from a text."""

from lit_transformer.tasks.prediction import TokenPrediction


class Denoising(TokenPrediction):
    """Writes what is missing from a text that it reads (T5: Raffel et al., 2020, arXiv:1910.10683): an encoder-decoder,
    a prefix-LM or a decoder, as the data lays texts out.

    Logs ``train/loss`` and, over the whole split with the same tokens missing each time, ``val/loss`` (nats per token
    that is written, sentinels among them) and ``val/perplexity``.
    """

    writes_text = False
