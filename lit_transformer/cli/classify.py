"""``lit-transformer classify``: the class of each line, with probabilities."""

import json
from typing import TYPE_CHECKING

from lit_transformer.cli.lines import Line, Lines
from lit_transformer.cli.model_options import add_model_options, add_text_options, at_least, load_model
from lit_transformer.cli.options import OptionParser
from lit_transformer.cli.output import opened, progress, writer
from lit_transformer.cli.prompts import checked
from lit_transformer.cli.translate import IN_MEMORY, Cuts
from lit_transformer.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from lit_transformer.generation import Classifier


def parser() -> OptionParser:
    """The verb's options."""
    result = OptionParser(
        "classify",
        "Write the class of each line of a text, with the probabilities of all classes, as JSON lines in order.",
        'lit-transformer classify --checkpoint runs/stdlib_packages/20260101-120000 --text "import asyncio"',
    )
    add_model_options(result)
    add_text_options(
        result,
        "the texts, one a line; or JSON lines with the fields of training, "
        "in a .jsonl file or where there are several fields",
    )
    add = result.add_argument
    add("--truncate", action="store_true", help="cut texts that are longer than the model reads, and say how many; "
        "left out: such a text is an error, unless training cut them too")  # fmt: skip
    add("--batch_size", type=int, default=32, metavar="N", help="lines read together (default: %(default)s)")
    return result


def run(argv: list[str]) -> int:
    """Runs the verb."""
    options = parser().parse_args(argv)
    at_least(options, batch_size=1)
    lines = Lines(options)
    classifier = load_model(options).classifier
    cut = Cuts()
    with opened(options.output) as out, progress("classifying", lines.size, out) as moved:
        write = writer(out)
        for block in lines.blocks(1 if out.isatty() else IN_MEMORY * options.batch_size):
            rows = []
            for line in block:
                try:
                    tokens, types, lost = classifier.row(texts(line, classifier), options.truncate)
                except UserError as error:
                    remedy = ": shorten it, or cut it by --truncate" if " reads " in str(error) else ""
                    raise UserError(f"{line.where}: {error}{remedy}") from None
                rows.append((tokens, types))
                cut.add(lost)
            labels = dict(classifier(rows, options.batch_size))
            for i, line in enumerate(block):
                said = {"id": line.number, "label": labels[i].label, "probabilities": labels[i].probabilities}
                write(json.dumps(said, ensure_ascii=False) + "\n")
            out.flush()
            moved(block[-1].end)
    cut.report()
    return EXIT_DONE


def texts(line: Line, classifier: "Classifier") -> list[str]:
    """The texts of a line: the whole of it, or the fields of a JSON line.

    Raises:
        UserError: A JSON line that lacks a field.
    """
    if len(classifier.fields) == 1 and not line.where.rpartition(", line ")[0].endswith(".jsonl"):
        return [line.text]
    try:
        content = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError("is no JSON object")
    found = [content.get(field) for field in classifier.fields]
    for field, text in zip(classifier.fields, found, strict=True):
        if not isinstance(text, str):
            raise UserError(f"has no text {field!r} (there is: {', '.join(map(str, content))})")
    return [checked(str(text), f"field {field!r}") for field, text in zip(classifier.fields, found, strict=True)]
