"""How generated texts are compared with references, over a whole split."""

from collections.abc import Sequence
from typing import Any, Literal

from lit_transformer.errors import UserError

Case = Literal["keep", "lower"]


class TextMetric:
    """Base of the metrics: ``name`` is what it is logged as."""

    name: str

    def __call__(self, hypotheses: Sequence[str], references: Sequence[str]) -> float:
        """The score of the whole split."""
        raise NotImplementedError

    @property
    def signature(self) -> str:
        """What must be the same for two scores to be comparable; known once a score was computed."""
        return ""


class _SacreBleu(TextMetric):
    metric: Any

    def __call__(self, hypotheses: Sequence[str], references: Sequence[str]) -> float:
        """See the base class."""
        return float(self.metric.corpus_score(list(hypotheses), [list(references)]).score)

    @property
    def signature(self) -> str:
        """sacreBLEU's."""
        return f"{self.name}: {self.metric.get_signature()}"


class Bleu(_SacreBleu):
    """Corpus BLEU (Papineni et al., 2002) of detokenised text by sacreBLEU (Post, 2018, arXiv:1804.08771).

    ``{tokenize: 13a, case: lower}``, logged as ``bleu_lower``, is the lower-cased tokenised BLEU that the Multi30k
    literature gives.

    Args:
        tokenize: sacreBLEU's tokenizer: 13a, intl, char, none, ...
        case: "lower" compares in lower case.
    """

    def __init__(self, tokenize: str = "13a", case: Case = "keep") -> None:
        from sacrebleu.metrics import BLEU

        if tokenize not in BLEU.TOKENIZERS:
            raise UserError(f"metrics.tokenize: is {tokenize!r}, must be one of {', '.join(BLEU.TOKENIZERS)}")
        self.name = "bleu" + ("" if tokenize == "13a" else f"_{tokenize}") + ("_lower" if case == "lower" else "")
        self.metric = BLEU(tokenize=tokenize, lowercase=case == "lower")


class Chrf(_SacreBleu):
    """Character n-gram F-score (Popovic, 2015) by sacreBLEU.

    Args:
        word_order: Longest word n-gram beside those of characters: 2 is chrF++.
    """

    def __init__(self, word_order: int = 0) -> None:
        from sacrebleu.metrics import CHRF

        self.name = "chrf" + "+" * word_order
        self.metric = CHRF(word_order=word_order)


class ExactMatch(TextMetric):
    """Share of the texts that are the reference to the letter."""

    name = "exact_match"

    def __call__(self, hypotheses: Sequence[str], references: Sequence[str]) -> float:
        """See the base class."""
        return sum(map(str.__eq__, hypotheses, references)) / max(1, len(references))
