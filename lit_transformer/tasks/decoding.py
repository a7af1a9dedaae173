"""How a task decodes while it evaluates."""

from collections.abc import Sequence

from lit_transformer.errors import UserError
from lit_transformer.generation.decoding import Completion
from lit_transformer.generation.translation import Translator


class BeamSearch:
    """Beam search for translations, of a length that depends on the source's.

    Args:
        beams: Hypotheses kept open at each step; 1 is greedy decoding.
        length_penalty: Exponent of the length that the log-probability is divided by; 0 favours short texts.
        ratio: Most new tokens as a multiple of the prompt's.
        extra: New tokens allowed beyond that.
    """

    def __init__(self, beams: int = 5, length_penalty: float = 1.0, ratio: float = 1.5, extra: int = 10) -> None:
        for name, value, least in (("beams", beams, 1), ("ratio", ratio, 0), ("extra", extra, 1)):
            if value < least:
                raise UserError(f"model.decoding.{name}: is {value}, must be at least {least}")
        self.beams = beams
        self.length_penalty = length_penalty
        self.ratio = ratio
        self.extra = extra

    def __call__(self, translator: Translator, prompts: Sequence[Sequence[int]]) -> list[Completion]:
        """The best completion of each prompt, with its text."""
        options = {"beams": self.beams, "length_penalty": self.length_penalty}
        found = translator(prompts, batch_size=len(prompts), ratio=self.ratio, extra=self.extra, **options)
        return [completion for _, completion in sorted(found, key=lambda each: each[0])]
