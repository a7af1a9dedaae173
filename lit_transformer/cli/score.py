"""``lit-transformer score``: how probable a text is."""

import json
import math
import sys
from typing import TYPE_CHECKING, Any, TextIO

from lit_transformer.cli.lines import Lines
from lit_transformer.cli.model_options import add_hold_option, add_model_options, add_text_options, at_least, load_model
from lit_transformer.cli.options import OptionParser
from lit_transformer.cli.output import opened, progress, writer
from lit_transformer.cli.prompts import decoded, read_bytes
from lit_transformer.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from lit_transformer.generation import Model, Score


def parser() -> OptionParser:
    """The verb's options."""
    result = OptionParser(
        "score",
        "Say how probable a text is: log-likelihood (in nats), perplexity (of a token), bits per byte.",
        "lit-transformer score --checkpoint runs/quickstart/20260101-120000 --input chapter.txt",
    )
    add_model_options(result)
    add_hold_option(result)
    add_text_options(result, "the text")
    add = result.add_argument
    add("--lines", action="store_true", help="score each line as a text of its own, as JSON lines")
    add("--json", action="store_true", help="write JSON")
    add("--context", type=int, metavar="N", help="most tokens the model looks at (default: what it was trained with); "
        "a longer text is read in windows that overlap by half")  # fmt: skip
    return result


def run(argv: list[str]) -> int:
    """Runs the verb."""
    options = parser().parse_args(argv)
    at_least(options, context=2)
    lines = Lines(options)
    text = None if options.lines else whole(lines)
    model = load_model(options)
    model.score("")  # a network that cannot is said before anything is written
    with opened(options.output) as out:
        if text is None:
            score_lines(model, lines, options.context, out)
            return EXIT_DONE
        try:
            values = described(model.score(text, options.context))
        except UserError as error:
            raise UserError(f"{'--text' if lines.only is not None else lines.name}: {error}") from None
        if options.json or str(options.output or "").endswith((".json", ".jsonl")):
            out.write(json.dumps(values) + "\n")
        else:
            out.write("".join(f"{name.replace('_', ' '):<16}{shown(value)}\n" for name, value in values.items()))
    return EXIT_DONE


def whole(lines: Lines) -> str:
    """The text of the input."""
    return lines.only if lines.only is not None else decoded(read_bytes(lines.path or "-", "--input"), lines.name)


def score_lines(model: "Model", lines: Lines, context: int | None, out: TextIO) -> None:
    """A JSON line for each line, and the sums over all of them on standard error."""
    write = writer(out)
    nats, tokens, size, count = 0.0, 0, 0, 0
    with progress("scoring", lines.size, out) as moved:
        for line in lines:
            try:
                score = model.score(line.text, context)
            except UserError as error:
                raise UserError(f"{line.where}: {error}") from None
            write(json.dumps({"id": line.number, **described(score)}) + "\n")
            nats, tokens = nats + score.log_likelihood, tokens + len(score.tokens)
            size, count = size + score.bytes, count + 1
            moved(line.end)
    if tokens and size:
        print(f"{count:,} lines, {tokens:,} tokens: log-likelihood {nats:.3f}, perplexity {_exp(-nats / tokens):.4f}, "
              f"bits per byte {-nats / math.log(2) / size:.4f}", file=sys.stderr)  # fmt: skip


def described(score: "Score") -> dict[str, Any]:
    """A score as plain values; None where there is nothing to take a mean of."""
    return {
        "tokens": len(score.tokens),
        "bytes": score.bytes,
        "log_likelihood": score.log_likelihood,
        "perplexity": _exp(-score.log_likelihood / len(score.tokens)) if score.tokens else None,
        "bits_per_byte": score.bits_per_byte if score.bytes else None,
    }


def shown(value: float | None) -> str:
    """A value for the reader of a terminal."""
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))
