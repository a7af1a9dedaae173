"""``lit-transformer generate``: continue a text with a trained model."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lit_transformer.cli.options import OptionParser
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
    add("--max_new_tokens", type=int, default=256, metavar="N", help="most tokens to add (default: %(default)s)")
    add("--temperature", type=float, default=0.8, metavar="X", help="below 1 sharper, above 1 flatter than the model; "
        "0 takes the most probable token (default: %(default)s)")  # fmt: skip
    add("--top_k", type=int, metavar="N", help="only the N most probable tokens")
    add("--top_p", type=float, metavar="X", help="only the most probable tokens that hold this share together")
    add("--min_p", type=float, metavar="X", help="only tokens at least this share as probable as the most probable one")
    add("--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be repeated")
    add("--seed", type=int, metavar="N", help="the same seed gives the same text")
    add("--num_samples", type=int, default=1, metavar="N", help="continuations per prompt (default: %(default)s)")
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
    if options.batch_size < 1:
        raise UserError(f"generate: --batch_size is {options.batch_size}, must be at least 1")
    prompts = read_prompts(options)
    sampling = sampling_of(options)  # wrong values are said before the checkpoint is read
    import lit_transformer
    from lit_transformer.recipe import ImportList

    ImportList(options.allow).enforce()
    model = lit_transformer.load(options.checkpoint, options.device)
    if prompts is None:
        return converse(model, options, sampling)
    announce_window(model, prompts, options)
    with opened(options.output) as out:
        if len(prompts) == 1 and options.num_samples == 1 and not as_json(options):
            stream_one(model, prompts[0], sampling, out)
        else:
            write_all(model, prompts, options, sampling, out)
    return EXIT_DONE


def read_prompts(options: argparse.Namespace) -> list[str] | None:
    """The prompts; None where they are to be asked for."""
    if options.prompt is not None:
        return [checked(options.prompt, "--prompt")]
    if options.prompts is None:
        if sys.stdin is not None and sys.stdin.isatty():
            return None
        return [decoded(read_bytes("-"), "standard input").removesuffix("\n")]
    name = "standard input" if options.prompts == "-" else options.prompts
    lines = decoded(read_bytes(options.prompts), name).splitlines()
    if not lines:
        raise UserError(f"{name}: is empty: it should hold one prompt a line")
    if not options.prompts.endswith(".jsonl"):
        return lines
    return [json_prompt(line, f"{name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def json_prompt(line: str, where: str) -> str:
    """The field ``prompt`` of a JSON line."""
    try:
        content = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: is not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("prompt"), str):
        names = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{where}: has no text 'prompt' (there is: {names})")
    return checked(content["prompt"], where)


def read_bytes(path: str) -> bytes:
    """A file's content, or standard input's."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; --prompts takes a file with one prompt a line") from None
    except OSError as error:
        raise EnvironmentFault(f"{path}: could not be read: {error.strerror}") from error


def decoded(data: bytes, name: str) -> str:
    """Bytes as text."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: is not UTF-8 text (byte {error.start})") from None


def checked(text: str, where: str) -> str:
    """A text that can be written as UTF-8; arguments that are not come with stray surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where}: is not UTF-8 text (character {error.start})") from None
    return text


def sampling_of(options: argparse.Namespace) -> dict[str, Any]:
    """The options as ``Model.complete`` takes them."""
    from lit_transformer.generation import StopStrings, sampler_of

    StopStrings(options.stop)
    for name, least in (("max_new_tokens", 0), ("num_samples", 1)):
        if getattr(options, name) < least:
            raise UserError(f"--{name}: is {getattr(options, name)}, must be at least {least}")
    if options.seed is None:
        options.seed = int.from_bytes(os.urandom(4), "little")
    return {
        "sampler": sampler_of(options.temperature, options.top_k, options.top_p, options.min_p),
        "max_new_tokens": options.max_new_tokens,
        "stop": options.stop,
        "seed": options.seed,
        "context": options.context,
    }


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
            completions = model.complete(
                batch, samples=options.num_samples, **{**sampling, "seed": options.seed + start}
            )
        except UserError as error:
            raise UserError(f"prompts {start} to {start + len(batch) - 1}: {error}") from None
        for completion in completions:
            number = start + completion.prompt
            if as_json(options):
                write(json.dumps(record(prompts[number], number, completion), ensure_ascii=False) + "\n")
            else:
                sample = f", sample {completion.sample}" if options.num_samples > 1 else ""
                write(f"==> prompt {number}{sample} <==\n{batch[completion.prompt]}{completion.text}\n\n")
        out.flush()


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
