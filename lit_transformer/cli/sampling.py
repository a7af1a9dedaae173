"""The options that say how text is sampled, the same in every verb that writes text."""

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lit_transformer.errors import UserError

if TYPE_CHECKING:
    from lit_transformer.generation import LogitsProcessor, Model, Remembering, Sampler


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
    add("--regex", metavar="PATTERN", help="the text matches this regular expression")
    add("--json_schema", metavar="FILE", help="the text is JSON that fits the schema in this file")
    add("--negative_prompt", metavar="TEXT", help="move away from what would follow this")
    add("--guidance", type=float, default=1.5, metavar="X", help="how far; 1 is not at all (default: %(default)s)")
    add("--cache", choices=("int8", "streaming", "fixed", "compiled"), help="remember in int8, in a quarter of "
        "the memory; or the first and the latest tokens only, for texts without end; or let every step have one shape, "
        "recorded once on a GPU (fixed), and compiled before (compiled: a minute at first)")  # fmt: skip
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
    if options.regex is not None and options.json_schema is not None:
        raise UserError("--regex and --json_schema: only one of them says what the text is")
    if options.json_schema is not None:
        from lit_transformer.cli.prompts import decoded, read_bytes

        options.json_schema = decoded(read_bytes(options.json_schema, "--json_schema"), options.json_schema)
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
    if model is not None:
        processors = [*guidance_from(options, model), *processors, *structure_from(options, model)]
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


def guidance_from(options: argparse.Namespace, model: "Model") -> "list[LogitsProcessor]":
    """Guidance away from a negative prompt, where there is one."""
    from lit_transformer import generation

    if options.negative_prompt is None:
        return []
    negative = model.prompting(options.negative_prompt)
    return [generation.Guidance(model.network, negative, options.guidance, options.max_new_tokens)]


def structure_from(options: argparse.Namespace, model: "Model") -> "list[LogitsProcessor]":
    """What the text must match, where that is said.

    Raises:
        UserError: The pattern is none, or the model has no token that ends a text.
    """
    from lit_transformer import generation

    name = "regex" if options.regex is not None else "json_schema"
    text = getattr(options, name)
    if text is None:
        return []
    vocabulary, tokenizer = model.network.vocabulary, model.tokenizer
    if vocabulary.eos_id is None:
        raise UserError(f"--{name}: needs a token that ends texts, and the model's tokenizer has none")
    make = generation.Structured if name == "regex" else generation.Structured.json
    special = sorted(getattr(tokenizer, "special_ids", ()))
    return [make(text, tokenizer.decode, vocabulary.size, vocabulary.eos_id, special)]


def remembering_from(options: argparse.Namespace, model: "Model") -> "Remembering | None":
    """How decoding remembers; None: as usual.

    Raises:
        UserError: Streaming without a context.
    """
    from lit_transformer import generation

    if options.cache == "int8":
        return generation.Int8Remembering()
    if options.cache in ("fixed", "compiled"):
        return generation.FixedShape() if options.cache == "fixed" else generation.Compiled()
    if options.cache == "streaming":
        window = options.context or model.network.dims.max_len
        if window is None:
            raise UserError("--cache streaming: needs --context, the number of tokens to remember")
        return generation.Streaming(window, min(4, window // 8), max(1, window // 16))
    return None
