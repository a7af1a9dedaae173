"""Models of Hugging Face outside our families: what they say of their attention themselves."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lit_transformer.analysis.reading import Reading
from lit_transformer.analysis.record import EVERYTHING, AttentionLayer, AttentionRecord
from lit_transformer.errors import UserError


class GivenWeights(AttentionLayer):
    """An attention of which the weights are known and nothing else.

    Args:
        name: What it is called.
        stack: Name of its stack.
        layer: Number of the layer in its stack.
        cross: Whether the keys are an encoder's states.
        given: Its weights (B, H, T, S).
    """

    def __init__(self, name: str, stack: str, layer: int, cross: bool, given: Float[Tensor, "B H T S"]) -> None:
        super().__init__(name, stack, layer, cross)
        self.given = given

    @property
    def heads(self) -> int:
        """Number of maps of weights."""
        return self.given.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of queries and of keys."""
        return self.given.shape[2], self.given.shape[3]

    def weights(self, heads: slice = EVERYTHING, rows: slice = EVERYTHING) -> Float[Tensor, "B h t S"]:
        """See the base class."""
        return self.given[:, heads, rows].float()


FIELDS = (
    ("encoder_attentions", "encoder", False), ("attentions", "stack", False), ("decoder_attentions", "decoder", False),
    ("cross_attentions", "decoder", True),
)  # fmt: skip
"""Where a model's output keeps weights, of which stack, and whether they are of the encoder's states."""


@torch.no_grad()
def record_foreign(model: Any, **inputs: Any) -> AttentionRecord:
    """What a model of ``transformers`` says of its attention, as a record that metrics and explorer take.

    Args:
        model: The model; built with ``attn_implementation="eager"``, as the other kernels give no weights.
        inputs: What it is called with.

    Raises:
        UserError: It gives no weights.
    """
    if getattr(getattr(model, "config", None), "_attn_implementation", "eager") != "eager":
        model.set_attn_implementation("eager")
    output = model(**inputs, output_attentions=True, return_dict=True)
    record = AttentionRecord()
    for field, stack, cross in FIELDS:
        for number, weights in enumerate(getattr(output, field, None) or ()):
            if weights is not None:
                name = f"{stack}.layers.{number}.{'cross_' if cross else ''}attention"
                record.layers.append(GivenWeights(name, stack, number, cross, weights))
    if not record.layers:
        raise UserError(f"{type(model).__name__} gives no attention weights: load it with attn_implementation='eager'")
    return record


def read_foreign(model: Any, tokenizer: Any, text: str, target: str | None = None, name: str = "model") -> Reading:
    """Has a model of ``transformers`` read a text, for the explorer: ``explore([read_foreign(...)])``.

    Its weights are shown; queries, keys, gradients and lens are not, as they are known of our own networks only.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        text: The text; of an encoder-decoder, the source.
        target: What an encoder-decoder's decoder reads; left out: its start token alone.
        name: What the model is called.

    Raises:
        UserError: An empty text, or a model that gives no weights.
    """
    if not text.strip():
        raise UserError("the text is empty: give one with at least a word")
    inputs = tokenizer(text, return_tensors="pt")
    ids = inputs["input_ids"][0]
    given = {key: value for key, value in inputs.items() if key in ("input_ids", "attention_mask", "token_type_ids")}
    apart = bool(getattr(model.config, "is_encoder_decoder", False))
    tokens = ids
    if apart:
        start = model.config.decoder_start_token_id
        behind = tokenizer(text_target=target)["input_ids"] if target else []
        tokens = torch.tensor([start, *behind[:-1]] if behind else [start])
        given["decoder_input_ids"] = tokens.unsqueeze(0)

    def name_of(token: int) -> str:
        return str(tokenizer.decode([token])) or str(tokenizer.convert_ids_to_tokens(token))

    training = model.training
    model.eval()
    try:
        record = record_foreign(model, **given)
    finally:
        model.train(training)
    source = ids if apart else None
    words = [name_of(int(token)) for token in tokens]
    source_words = [name_of(int(token)) for token in ids] if apart else []
    return Reading(name, record, tokens, words, source, source_words, name_of=name_of)
