"""Supervised fine-tuning: learn to write the responses to prompts."""

from lit_transformer.tasks.prediction import TokenPrediction


class SupervisedFineTuning(TokenPrediction):
    """Predicts the tokens of responses, behind their prompts; usually from the weights of a language model
    (``--init_from``), with its tokenizer.

    Logs ``train/loss`` and, over the whole split, ``val/loss`` (nats per token of the responses, their ends among them)
    and ``val/perplexity``.
    """
