"""``lit-transformer generate``: continue a text with a trained model."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lit_transformer.cli.options import OptionParser
from lit_transformer.cli.prompts import read_prompts
from lit_transformer.cli.sampling import add_sampling_options, sampler_from, sampling_from
from lit_transformer.errors import EXIT_DONE, EnvironmentFault, UserError

if TYPE_CHECKING:
    from lit_transformer.generation import Completion, Model

VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
"""Control characters as signs: what a model writes must not steer the terminal."""


def parser() -> OptionParser:
    """The verb's options."""
    result = OptionParser(
        "generate",
        "Continue a text with a trained model. Without --prompt and --prompts, asks for prompts on a terminal, and\n"
        "elsewhere takes standard input as the prompt.",
        'lit-transformer generate --checkpoint runs/quickstart/20260101-120000 --prompt "def main" --seed 1',
    )
    add = result.add_argument
    add("--checkpoint", required=True, metavar="PATH", help="a checkpoint file, or a run folder: its best checkpoint")
    prompts = result.add_mutually_exclusive_group()
    prompts.add_argument("--prompt", metavar="TEXT", help="what to continue; '' starts a document")
    prompts.add_argument(
        "--prompts", metavar="FILE", help="one prompt a line, or JSON lines with 'prompt' (.jsonl); - is standard input"
    )
    add_sampling_options(result)
    add("--num_samples", type=int, default=1, metavar="N", help="continuations per prompt (default: %(default)s)")
    add("--beams", type=int, metavar="N", help="search for the most probable text, keeping N open; draws nothing")
    add("--length_penalty", type=float, default=1.0, metavar="X", help="beams are compared by log-probability / "
        "length^X (default: %(default)s)")  # fmt: skip
    add("--context", type=int, metavar="N", help="most tokens the model looks at (default: what it was trained with)")
    add("--batch_size", type=int, default=16, metavar="N", help="continuations decoded together (default: %(default)s)")
    add("--device", default="auto", metavar="NAME", help="cpu, cuda, mps (default: the fastest there is)")
    add(
        "--allow",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="let the checkpoint name classes of this package",
    )
    add(
        "--output", metavar="FILE", help="where to write, as JSON lines if it ends in .jsonl; left out: standard output"
    )
    return result


def run(argv: list[str]) -> int:
    """Runs the verb."""
    options = parser().parse_args(argv)
    for name, least in (("max_new_tokens", 0), ("num_samples", 1), ("batch_size", 1)):
        if getattr(options, name) < least:
            raise UserError(f"--{name}: is {getattr(options, name)}, must be at least {least}")
    prompts = read_prompts(options)
    if options.beams is not None:
        if options.stop or prompts is None:
            raise UserError("--beams: takes --prompt or --prompts, and no --stop")
        options.temperature = 0  # nothing is drawn, so only penalties and bans are left of the sampler
    sampling = sampling_from(options)  # wrong values are said before the checkpoint is read
    import lit_transformer
    from lit_transformer.recipe import ImportList

    ImportList(options.allow).enforce()
    model = lit_transformer.load(options.checkpoint, options.device)
    sampling["sampler"] = sampler_from(options, model)
    if prompts is None:
        return converse(model, options, sampling)
    if options.beams is None:
        announce_window(model, prompts, options)
    with opened(options.output) as out:
        if len(prompts) == 1 and options.num_samples == 1 and not as_json(options) and options.beams is None:
            stream_one(model, prompts[0], sampling, out)
        else:
            write_all(model, prompts, options, sampling, out)
    return EXIT_DONE


def announce_window(model: "Model", prompts: list[str], options: argparse.Namespace) -> None:
    """Says beforehand that the model will not see the whole text."""
    window = options.context or model.network.dims.max_len
    if window is None or any(model.tokenizer.unknown(prompt) is not None for prompt in prompts):
        return
    longest = max(len(model.tokenizer.encode(prompt)) for prompt in prompts)
    if window >= longest > window - options.max_new_tokens:
        print(f"lit-transformer: the context holds {window} tokens; when it is full, its older half is forgotten",
              file=sys.stderr)  # fmt: skip


class opened:  # noqa: N801 used like open()
    """Standard output, or a file that only appears once it is whole.

    Args:
        path: The file; None is standard output.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path
        self.part = None if path is None else Path(f"{path}.part")

    def __enter__(self) -> TextIO:
        if self.part is None:
            if hasattr(sys.stdout, "reconfigure"):
                sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character
            return sys.stdout
        try:
            self.file = self.part.open("w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise EnvironmentFault(f"{self.path}: cannot be written: {error.strerror}") from error
        return self.file

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self.part is not None and self.path is not None:
            self.file.close()
            if kind is None:
                self.part.replace(self.path)
            else:
                self.part.unlink(missing_ok=True)


def writer(out: TextIO) -> Callable[[str], None]:
    """Writes at once; on a terminal, control characters become visible signs."""
    terminal = out.isatty()

    def write(text: str) -> None:
        out.write(text.translate(VISIBLE) if terminal else text)
        if terminal:
            out.flush()

    return write


def stream_one(model: "Model", prompt: str, sampling: dict[str, Any], out: TextIO) -> None:
    """One prompt and what follows it, as it comes."""
    write = writer(out)
    pieces = model.stream(prompt, **sampling)
    first = next(pieces, "")  # what is wrong with the prompt is said before anything is written
    write(prompt + first)
    for piece in pieces:
        write(piece)
    write("\n")
    out.flush()


def write_all(
    model: "Model", prompts: list[str], options: argparse.Namespace, sampling: dict[str, Any], out: TextIO
) -> None:
    """All continuations of all prompts, in order."""
    write = writer(out)
    several = max(1, options.batch_size // options.num_samples)
    for start in progress(range(0, len(prompts), several), out):
        batch = prompts[start : start + several]
        try:
            completions = completed(model, batch, start, options, sampling)
        except UserError as error:
            raise UserError(f"prompts {start} to {start + len(batch) - 1}: {error}") from None
        for completion in completions:
            number = start + completion.prompt
            if as_json(options):
                write(json.dumps(record(prompts[number], number, completion), ensure_ascii=False) + "\n")
            elif len(prompts) == options.num_samples == 1:
                write(f"{batch[0]}{completion.text}\n")
            else:
                sample = f", sample {completion.sample}" if options.num_samples > 1 else ""
                write(f"==> prompt {number}{sample} <==\n{batch[completion.prompt]}{completion.text}\n\n")
        out.flush()


def completed(
    model: "Model", batch: list[str], start: int, options: argparse.Namespace, sampling: dict[str, Any]
) -> list["Completion"]:
    """The continuations of some prompts, drawn or searched for."""
    if options.beams is None:
        return model.complete(batch, samples=options.num_samples, **{**sampling, "seed": options.seed + start})
    return model.search(
        batch,
        beams=options.beams,
        samples=options.num_samples,
        max_new_tokens=options.max_new_tokens,
        length_penalty=options.length_penalty,
        processors=sampling["sampler"].processors,
        context=options.context,
    )


def record(prompt: str, number: int, completion: "Completion") -> dict[str, Any]:
    """One continuation as a JSON line."""
    return {"id": number, "sample": completion.sample, "prompt": prompt, "text": completion.text,
            "tokens": len(completion.tokens), "reason": completion.reason}  # fmt: skip


def as_json(options: argparse.Namespace) -> bool:
    """Whether JSON lines are wanted."""
    return options.output is not None and str(options.output).endswith(".jsonl")


def progress(batches: range, out: TextIO) -> Iterator[int]:
    """The batches, with a bar on standard error where it is a terminal and the text goes elsewhere."""
    if len(batches) < 2 or out.isatty() or not sys.stderr.isatty():
        yield from batches
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(batches, "generating", console=Console(stderr=True))


def converse(model: "Model", options: argparse.Namespace, sampling: dict[str, Any]) -> int:
    """Asks for prompts until the input ends; what is wrong with one is said, and the next is asked for."""
    print("a line is a prompt; Ctrl-C ends a text, Ctrl-D the program", file=sys.stderr)
    turn = 0
    while True:
        try:
            prompt = input("> ")
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return EXIT_DONE
        try:
            for sample in range(options.num_samples):
                stream_one(model, prompt, {**sampling, "seed": options.seed + turn + sample}, sys.stdout)
            turn += options.num_samples
        except UserError as error:
            print(f"lit-transformer: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            print()
