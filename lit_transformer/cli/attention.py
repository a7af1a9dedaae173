"""``lit-transformer attention``: what every head of a model does with a text."""

import argparse
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_transformer.cli.model_options import add_model_options, at_least, load_model
from lit_transformer.cli.options import OptionParser
from lit_transformer.cli.prompts import checked
from lit_transformer.errors import EXIT_DONE, EnvironmentFault, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lit_transformer.analysis.reading import Reading


def parser() -> OptionParser:
    """The verb's options."""
    result = OptionParser(
        "attention",
        "Show what every head of a model does with a text: as one HTML file that opens without a network, as a table\n"
        "of metrics, or as a figure of which heads are alike.",
        'lit-transformer attention --checkpoint runs/quickstart/20260101-120000 --text "def main" --output heads.html',
    )
    add_model_options(result)
    add = result.add_argument
    texts = result.add_mutually_exclusive_group(required=True)
    texts.add_argument("--text", metavar="TEXT", help="what the model reads")
    texts.add_argument("--input", metavar="FILE", help="a file with that text; - is standard input")
    add("--second", metavar="TEXT", help="the answer of a model that answers (left out: its own); the second text of a "
        "row for an encoder; else what is read behind the text")  # fmt: skip
    add("--generate", type=int, default=0, metavar="N", help="tokens that the model adds, always the most probable "
        "one, decoded with a cache (default: %(default)s)")  # fmt: skip
    add("--with", dest="other", metavar="PATH", help="another checkpoint, to be put beside the first one")
    add("--heads", action="append", default=[], metavar="LAYER.HEAD", help="a head that is kept whole, whatever its "
        "size, counted from 0 ('cross 1.3' where a model has several parts); several: again")  # fmt: skip
    add("--megabytes", type=float, metavar="X", help="most megabytes of the page (default: 5 for up to 128 tokens, "
        "else 20); what does not fit is left out, and said")  # fmt: skip
    add("--metrics", action="store_true", help="write a table of all heads' metrics to standard output")
    add("--similarity", metavar="FILE", help="write a figure of the heads, like beside like, as .svg")
    add("--output", metavar="FILE", help="the page to write, .html")
    return result


def run(argv: list[str]) -> int:
    """Runs the verb."""
    options = parser().parse_args(argv)
    at_least(options, generate=0)
    if options.megabytes is not None and not 0.5 <= options.megabytes <= 1000:
        raise UserError(f"--megabytes: is {options.megabytes:g}, must be between 0.5 and 1000")
    if not (options.output or options.metrics or options.similarity):
        raise UserError("attention: say what is wanted: --output page.html, --metrics or --similarity figure.svg")
    for option, ending in (("output", ".html"), ("similarity", ".svg")):
        _check_file(f"--{option}", getattr(options, option), ending)
    text = _text(options)
    second = None if options.second is None else checked(options.second, "--second")
    from lit_transformer.analysis.reading import read

    names = [options.checkpoint] + ([options.other] if options.other else [])
    readings = []
    for name in names:
        options.checkpoint = name
        readings.append(read(load_model(options), text, second, options.generate, _short(name, names)))
    if options.metrics:
        for reading in readings:
            _print_metrics(reading, len(readings) > 1)
    if options.similarity:
        _draw_similarity(options.similarity, readings)
    if options.output:
        _write_page(options, readings)
    return EXIT_DONE


def _check_file(option: str, path: str | None, ending: str) -> None:
    """Refuses a place that cannot be written before anything is computed."""
    if path is None:
        return
    if not path.lower().endswith(ending):
        raise UserError(f"{option} {path}: must end in {ending}")
    if not Path(path).absolute().parent.is_dir():
        raise EnvironmentFault(f"{path}: cannot be written: its folder does not exist")


def _text(options: argparse.Namespace) -> str:
    from lit_transformer.cli.prompts import decoded, read_bytes

    if options.text is not None:
        return checked(options.text, "--text")
    name = "standard input" if options.input == "-" else options.input
    return decoded(read_bytes(options.input, "--input"), name).rstrip("\n")


def _short(name: str, names: list[str]) -> str:
    """The shortest end of a path that no other one shares."""
    parts = Path(name).absolute().parts
    for count in range(1, len(parts) + 1):
        end = parts[-count:]
        if sum(Path(other).absolute().parts[-count:] == end for other in names) == 1:
            return "/".join(end)
    return name


def _print_metrics(reading: "Reading", named: bool) -> None:
    from lit_transformer.analysis.measured import measured

    if named:
        print(reading.name)
    print(measured(reading).text())
    sys.stdout.flush()


def _draw_similarity(path: str, readings: "list[Reading]") -> None:
    from lit_transformer.analysis.similarity_picture import similarity_svg

    if len(readings) > 1:
        raise UserError("--similarity: draws one checkpoint; leave out --with")
    text = similarity_svg(readings[0].record)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be written: {error.strerror or error}") from error
    print(path)


def _write_page(options: argparse.Namespace, readings: "list[Reading]") -> None:
    from lit_transformer.analysis.explorer import explore

    with _heard() as heard:
        page = explore(readings, options.heads, options.megabytes, heard=heard)
        size = page.save(options.output)
    for line in page.left_out:
        print(f"lit-transformer: no room for {line}", file=sys.stderr)
    if page.left_out:
        print(
            "lit-transformer: --heads LAYER.HEAD keeps a head whole, --megabytes allows a larger page", file=sys.stderr
        )
    print(f"{options.output}  {size / 1e6:.1f} MB")


@contextmanager
def _heard() -> "Iterator[Callable[[str], Any]]":
    """What is being done, where standard error is a terminal."""
    if not sys.stderr.isatty():
        yield lambda what: None
        return
    from rich.console import Console

    with Console(stderr=True).status("reading") as status:
        yield lambda what: status.update(what)
