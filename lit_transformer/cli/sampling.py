"""The options that say how text is sampled, the same in every verb that writes text."""

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lit_transformer.errors import UserError

if TYPE_CHECKING:
    from lit_transformer.generation import Model, Sampler


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add = parser.add_argument
    add("--max_new_tokens", type=int, default=256, metavar="N", help="most tokens to add (default: %(default)s)")
    add("--temperature", type=float, default=0.8, metavar="X", help="below 1 sharper, above 1 flatter than the model; "
        "0 takes the most probable token (default: %(default)s)")  # fmt: skip
    add("--top_k", type=int, metavar="N", help="only the N most probable tokens")
    add("--top_p", type=float, metavar="X", help="only the most probable tokens that hold this share together")
    add("--min_p", type=float, metavar="X", help="only tokens at least this share as probable as the most probable one")
    add("--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be repeated")
    add("--seed", type=int, metavar="N", help="the same seed gives the same text")
    more = parser.add_argument_group("more ways to choose tokens")
    add = more.add_argument
    add("--typical_p", type=float, metavar="X", help="only tokens of nearly the mean surprise, up to this share")
    add("--epsilon", type=float, metavar="X", help="only tokens with at least this probability")
    add("--eta", type=float, metavar="X", help="the same, with less where all are improbable")
    add("--mirostat", type=float, metavar="BITS", help="hold the surprise of a token near this")
    add("--repetition_penalty", type=float, metavar="X", help="divide the score of tokens said before; 1 is none")
    add("--frequency_penalty", type=float, metavar="X", help="lower the score of a token for each time it was written")
    add("--presence_penalty", type=float, metavar="X", help="lower the score of a token that was written")
    add("--no_repeat_ngram", type=int, metavar="N", help="no N tokens in a row occur twice")
    add("--ban", action="append", default=[], metavar="TEXT", help="never write this; may be repeated")
    add("--min_new_tokens", type=int, default=0, metavar="N", help="do not end the document before N tokens")


def sampling_from(options: argparse.Namespace) -> dict[str, Any]:
    """The options as ``Model.complete`` takes them, but for the sampler; all are checked.

    Raises:
        UserError: A value out of its range.
    """
    from lit_transformer.generation import StopStrings

    StopStrings(options.stop)
    if "" in options.ban:
        raise UserError("--ban: is empty")
    sampler_from(options, None)
    if options.seed is None:
        options.seed = int.from_bytes(os.urandom(4), "little")
    return {
        "max_new_tokens": options.max_new_tokens,
        "stop": options.stop,
        "seed": options.seed,
        "context": options.context,
    }


def sampler_from(options: argparse.Namespace, model: "Model | None") -> "Sampler":
    """The sampler that the options describe; without a model it knows no words and no end."""
    from lit_transformer import generation

    def chosen(pairs: list[tuple[Callable[[Any], Any], Any]]) -> list[Any]:
        return [make(value) for make, value in pairs if value is not None]

    processors = chosen(
        [
            (generation.RepetitionPenalty, options.repetition_penalty),
            (generation.FrequencyPenalty, options.frequency_penalty),
            (generation.PresencePenalty, options.presence_penalty),
            (generation.NoRepeatNGram, options.no_repeat_ngram),
        ]
    )
    if model is not None and options.ban:
        size = model.network.vocabulary.size
        processors.append(generation.BannedText(options.ban, model.tokenizer.decode, size))
    if model is not None and options.min_new_tokens and model.network.vocabulary.eos_id is not None:
        processors.append(generation.MinNewTokens(options.min_new_tokens, [model.network.vocabulary.eos_id]))
    truncations = chosen(
        [
            (generation.TypicalP, options.typical_p),
            (generation.Epsilon, options.epsilon),
            (generation.Eta, options.eta),
            (generation.Mirostat, options.mirostat),
        ]
    )
    return generation.sampler_of(
        options.temperature, options.top_k, options.top_p, options.min_p, processors, truncations
    )
