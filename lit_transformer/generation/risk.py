"""Minimum Bayes risk: of several texts the one that the others agree with most."""

from collections.abc import Callable, Sequence

from lit_transformer.errors import UserError

Utility = Callable[[str, str], float]
"""How good a text is where another one is right."""


def chrf(hypothesis: str, reference: str) -> float:
    """chrF of one text (Popovic, 2015), sacreBLEU's, from 0 to 100."""
    from sacrebleu.metrics import CHRF

    score: float = CHRF().sentence_score(hypothesis, [reference]).score
    return score


def minimum_bayes_risk(texts: Sequence[str], utility: Utility = chrf) -> tuple[int, list[float]]:
    """The number of the text with the largest mean utility over all texts as references, and the means (Eikema & Aziz,
    2020, arXiv:2005.10283). Drawn without truncation, texts are the network's own estimate of what is right.

    Args:
        texts: Samples for one prompt; a text that was drawn twice counts twice.
        utility: What is to be large.

    Raises:
        UserError: No texts.
    """  # fmt: skip
    if not texts:
        raise UserError("minimum Bayes risk: there are no texts to choose from")
    known: dict[tuple[str, str], float] = {}
    means = []
    for text in texts:
        for other in texts:
            if (text, other) not in known:
                known[text, other] = utility(text, other)
        means.append(sum(known[text, other] for other in texts) / len(texts))
    return max(range(len(texts)), key=lambda i: means[i]), means
