"""The families, by the name that ``config.json`` calls them by."""

from lit_transformer.errors import UserError
from lit_transformer.interop.families.bart import Bart
from lit_transformer.interop.families.bert import Bert
from lit_transformer.interop.families.bloom import Bloom
from lit_transformer.interop.families.deepseek import DeepseekV2, DeepseekV3
from lit_transformer.interop.families.distilbert import DistilBert
from lit_transformer.interop.families.gemma2 import Gemma2
from lit_transformer.interop.families.gpt2 import GPT2
from lit_transformer.interop.families.gpt_neox import GPTNeoX
from lit_transformer.interop.families.llama import Llama
from lit_transformer.interop.families.marian import Marian
from lit_transformer.interop.families.mistral import Mistral
from lit_transformer.interop.families.mixtral import Mixtral
from lit_transformer.interop.families.modernbert import ModernBert
from lit_transformer.interop.families.qwen import Qwen2, Qwen3
from lit_transformer.interop.families.roberta import Roberta
from lit_transformer.interop.families.t5 import T5
from lit_transformer.interop.family import Family

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        GPT2(), Llama(), Mistral(), Qwen2(), Qwen3(), Gemma2(), Mixtral(), DeepseekV2(), DeepseekV3(), Bloom(),
        GPTNeoX(), Roberta(), Bert(), DistilBert(), ModernBert(), T5(), Bart(), Marian(),
    )
}  # fmt: skip


def family_of(name: str, where: str) -> Family:
    """The family of that name.

    Raises:
        UserError: There is none; the supported ones are listed.
    """
    if name not in FAMILIES:
        raise UserError(f"{where}: model_type {name[:60]!r} is not supported; supported: {', '.join(FAMILIES)}")
    return FAMILIES[name]
