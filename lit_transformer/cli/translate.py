"""``lit-transformer translate``: translate a file line by line, and score it against references."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lit_transformer.cli.lines import Line, Lines
from lit_transformer.cli.model_options import add_hold_option, add_model_options, add_text_options, at_least, load_model
from lit_transformer.cli.options import OptionParser
from lit_transformer.cli.output import opened, progress, writer
from lit_transformer.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from lit_transformer.generation import Completion, Translator

IN_MEMORY = 32
"""Batches that are sorted by length together."""


def parser() -> OptionParser:
    """The verb's options."""
    result = OptionParser(
        "translate",
        "Translate a text line by line, in order. An empty line stays empty.",
        "lit-transformer translate --checkpoint runs/numerals/20260101-120000 --input test.en --reference test.de",
    )
    add_model_options(result)
    add_hold_option(result)
    add_text_options(result, "the texts, one a line")
    add = result.add_argument
    add("--json", action="store_true", help="write JSON lines with source, translation and score")
    add("--reference", metavar="FILE", help="the right translations, one a line: prints corpus BLEU and chrF, with "
        "sacreBLEU's signatures, to standard error")  # fmt: skip
    add("--beams", type=int, default=5, metavar="N", help="translations kept open while searching; 1 takes the most "
        "probable token at each step (default: %(default)s)")  # fmt: skip
    add("--length_penalty", type=float, default=1.0, metavar="X", help="translations are compared by log-probability / "
        "length^X (default: %(default)s)")  # fmt: skip
    add("--max_new_tokens", type=int, metavar="N", help="most tokens of a translation (default: 10 more than 1.5 times "
        "those of the text)")  # fmt: skip
    add("--truncate", action="store_true", help="cut lines that are longer than the model reads, and say how many; "
        "left out: such a line is an error")  # fmt: skip
    add("--batch_size", type=int, default=32, metavar="N", help="lines decoded together (default: %(default)s)")
    return result


def run(argv: list[str]) -> int:
    """Runs the verb."""
    options = parser().parse_args(argv)
    at_least(options, beams=1, batch_size=1, max_new_tokens=1)
    lines = Lines(options)
    references = None if options.reference is None else read_references(options.reference, lines)
    translator = load_model(options, options.batch_size * options.beams).translator
    done: list[str] = []
    cut = Cuts()
    as_json = options.json or str(options.output or "").endswith(".jsonl")
    with opened(options.output) as out, progress("translating", lines.size, out) as moved:
        write = writer(out)
        for block in lines.blocks(1 if out.isatty() else IN_MEMORY * options.batch_size):
            for line, completion in translated(translator, block, options, cut):
                text = "" if completion is None else one_line(completion.text)
                if references is not None:
                    done.append(text)
                write((json.dumps(record(line, text, completion), ensure_ascii=False) if as_json else text) + "\n")
            out.flush()
            moved(block[-1].end)
    cut.report()
    if references is not None:
        if len(done) != len(references):
            raise UserError(f"{options.reference}: has {len(references)} lines and {lines.name} has {len(done)}")
        for score in scores(done, references):
            print(score, file=sys.stderr)
    return EXIT_DONE


class Cuts:
    """Counts the lines that were cut."""

    def __init__(self) -> None:
        self.lines = self.cut = self.tokens = 0

    def add(self, tokens: int) -> None:
        """One more line, of which so many tokens were cut off."""
        self.lines += 1
        self.cut += tokens > 0
        self.tokens += tokens

    def report(self) -> None:
        """Says what was cut, if anything was."""
        if self.cut:
            print(f"lit-transformer: {self.cut:,} of {self.lines:,} lines were cut, by {self.tokens:,} tokens",
                  file=sys.stderr)  # fmt: skip


def translated(
    translator: "Translator", block: list[Line], options: argparse.Namespace, cut: Cuts
) -> Iterator[tuple[Line, "Completion | None"]]:
    """Lines with their translations, in order; None for an empty line."""
    prompts: dict[int, list[int]] = {}
    for place, line in enumerate(block):
        try:
            if line.text.strip():
                prompts[place], tokens = translator.prompt(line.text, options.truncate)
                cut.add(tokens)
        except UserError as error:
            remedy = "" if options.truncate or " reads " not in str(error) else ": shorten it, or cut it by --truncate"
            raise UserError(f"{line.where}: {error}{remedy}") from None
    places = list(prompts)
    found: dict[int, Completion] = {}
    for i, completion in translator(
        list(prompts.values()),
        batch_size=options.batch_size,
        beams=options.beams,
        length_penalty=options.length_penalty,
        max_new_tokens=options.max_new_tokens,
    ):
        found[places[i]] = completion
    for place, line in enumerate(block):
        yield line, found.get(place)


def one_line(text: str) -> str:
    """A translation on one line, as its line of the output stands for its line of the input."""
    return text.replace("\r", " ").replace("\n", " ")


def record(line: Line, text: str, completion: "Completion | None") -> dict[str, Any]:
    """A translation as a JSON line."""
    score = None if completion is None else completion.score
    return {"id": line.number, "source": line.text, "translation": text, "score": score}


def read_references(path: str, lines: Lines) -> list[str]:
    """The lines of the file of references.

    Raises:
        UserError: It cannot be read, or has not as many lines as the input, where that is known by now.
    """
    found = [line.text for line in Lines(argparse.Namespace(text=None, input=path))]
    if lines.path is not None and lines.size is not None and path != "-":
        count = sum(1 for _ in lines)
        if count != len(found):
            raise UserError(f"{path}: has {len(found)} lines and {lines.name} has {count}")
    return found


def scores(translations: list[str], references: list[str]) -> Iterator[str]:
    """Corpus BLEU as it is and lower-cased, for models that write lower case, and chrF; each with its signature."""
    from sacrebleu.metrics import BLEU, CHRF

    if not references:
        return
    for name, metric in (("BLEU", BLEU()), ("BLEU lower-cased", BLEU(lowercase=True)), ("chrF", CHRF())):
        score = metric.corpus_score(translations, [references]).score
        yield f"{name} {score:.2f}  {metric.get_signature()}"
