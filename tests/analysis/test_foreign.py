"""Models outside our families are read through their own ``output_attentions``."""

import pytest
import torch
import transformers

from lit_transformer.analysis.explorer import explore
from lit_transformer.analysis.foreign import read_foreign, record_foreign
from lit_transformer.analysis.head_metrics import head_metrics
from lit_transformer.errors import UserError

SIZES = dict(vocab_size=40, d_model=16, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=16)


class Letters:
    """As much of a tokenizer as is asked for."""

    def __call__(self, text=None, text_target=None, return_tensors=None):
        ids = [3 + (ord(sign) - 97) % 26 for sign in (text or text_target)]
        return {"input_ids": torch.tensor([ids]) if return_tensors else ids}

    def decode(self, ids):
        return chr(97 + ids[0] - 3)


def test_an_encoder_decoder_and_a_decoder() -> None:
    torch.manual_seed(0)
    config = transformers.PegasusConfig(**SIZES, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16,
                                        decoder_start_token_id=0, max_position_embeddings=32)  # fmt: skip
    reading = read_foreign(transformers.PegasusForConditionalGeneration(config), Letters(), "abcdab", "ab")
    assert [(each.name, each.shape) for each in reading.record.layers] == [
        ("encoder.layers.0.attention", (6, 6)), ("decoder.layers.0.attention", (2, 2)),
        ("decoder.layers.1.attention", (2, 2)), ("decoder.layers.0.cross_attention", (2, 6)),
        ("decoder.layers.1.cross_attention", (2, 6)),
    ]  # fmt: skip
    page = explore([reading])
    assert [each["name"] for each in page.index["models"][0]["chapters"]] == ["encoder", "decoder", "cross"]
    assert page.index["models"][0]["lens"] is None

    model = transformers.OPTForCausalLM(transformers.OPTConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=16, word_embed_proj_dim=16,
        max_position_embeddings=32))  # fmt: skip
    tokens = torch.tensor([[4, 5, 6, 4, 5]])
    table = head_metrics(record_foreign(model, input_ids=tokens), tokens)
    assert len(table.rows) == 4 and (table["first"] > 0).all() and (table["next"] == 0).all()


def test_a_model_without_weights() -> None:
    model = transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=40, hidden_size=8, num_hidden_layers=1))
    with pytest.raises((UserError, ValueError), match="gives no attention weights|eager"):
        record_foreign(model, input_ids=torch.tensor([[4, 5]]))
    with pytest.raises(UserError, match="empty"):
        read_foreign(model, Letters(), " ")
