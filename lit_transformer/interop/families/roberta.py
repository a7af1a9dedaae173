"""RoBERTa (Liu et al., 2019, arXiv:1907.11692): BERT whose positions count from behind the padding's id."""

from typing import Any

from lit_transformer.errors import UserError
from lit_transformer.interop.config import Config
from lit_transformer.interop.families.bert import Bert
from lit_transformer.interop.section import Section
from lit_transformer.interop.transforms import RowsFrom, Transform
from lit_transformer.vocabulary import Vocabulary


class Roberta(Bert):
    """BERT with one token type; the first rows of its table of positions, which no token stands on, are left out."""

    model_type = "roberta"
    architecture = "RobertaForMaskedLM"
    base = "RobertaModel"
    prefix = "roberta."
    ignored = (r"roberta\.embeddings\.position_ids",)
    dropped = (r"roberta\.pooler\..*", r"classifier\..*", r"qa_outputs\..*")
    head_weight = "lm_head.dense.weight"
    transform, head_norm, head_bias = "lm_head.dense", "lm_head.layer_norm", "lm_head.bias"

    def _start(self, config: Config) -> int:
        return config.count("pad_token_id", default=1) + 1

    def longest(self, config: Config) -> int:
        """See the base class."""
        return super().longest(config) - self._start(config)

    def position_steps(self, config: Config) -> tuple[Transform, ...]:
        """See the base class."""
        return (RowsFrom(self._start(config)),)

    def config(self, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
        """See the base class."""
        result = super().config(section, vocabulary)
        if result["type_vocab_size"] != 1:
            raise UserError(f"embedding.types: is {result['type_vocab_size']}, RoBERTa has one")
        pad = 1 if vocabulary.pad_id is None else vocabulary.pad_id
        longest = result["max_position_embeddings"] + pad + 1
        return result | {"pad_token_id": pad, "max_position_embeddings": longest}

    def aliases(self, config: Config) -> dict[str, str]:
        """See the base class."""
        return {
            "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        }
