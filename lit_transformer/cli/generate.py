"""``lit-transformer generate``: continue a text with a trained model."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any, TextIO

from lit_transformer.cli.model_options import add_hold_option, add_model_options, at_least, load_model
from lit_transformer.cli.options import OptionParser
from lit_transformer.cli.output import opened, progress, writer
from lit_transformer.cli.prompts import read_prompts
from lit_transformer.cli.sampling import add_sampling_options, remembering_from, sampler_from, sampling_from
from lit_transformer.cli.strategies import Agreement, Strategy, add_strategy_options, strategy_of
from lit_transformer.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from lit_transformer.generation import Completion, Model


def parser() -> OptionParser:
    """The verb's options."""
    result = OptionParser(
        "generate",
        "Continue a text with a trained model. Without --prompt and --prompts, asks for prompts on a terminal, and\n"
        "elsewhere takes standard input as the prompt. A model that was trained to answer (fine-tuning, translation,\n"
        "denoising) writes its answer to the prompt; one fine-tuned on conversations, by its chat template.",
        'lit-transformer generate --checkpoint runs/quickstart/20260101-120000 --prompt "def main" --seed 1',
    )
    add_model_options(result)
    add_hold_option(result)
    add = result.add_argument
    prompts = result.add_mutually_exclusive_group()
    prompts.add_argument("--prompt", metavar="TEXT", help="what to continue; '' starts a document")
    prompts.add_argument(
        "--prompts", metavar="FILE", help="one prompt a line, or JSON lines with 'prompt' (.jsonl); - is standard input"
    )
    add_sampling_options(result)
    add("--num_samples", type=int, default=1, metavar="N", help="continuations per prompt (default: %(default)s)")
    add("--context", type=int, metavar="N", help="most tokens the model looks at (default: what it was trained with)")
    add("--batch_size", type=int, default=16, metavar="N", help="continuations decoded together (default: %(default)s)")
    add_strategy_options(result)
    add("--raw", action="store_true", help="continue the prompt as it stands, also with a model that answers")
    add("--json", action="store_true", help="write JSON lines")
    add("--log_probabilities", action="store_true", help="write JSON lines with the log-probability of each token "
        "under the model itself")  # fmt: skip
    add(
        "--output", metavar="FILE", help="where to write, as JSON lines if it ends in .jsonl; left out: standard output"
    )
    return result


def run(argv: list[str]) -> int:
    """Runs the verb."""
    options = parser().parse_args(argv)
    at_least(options, max_new_tokens=0, num_samples=1, batch_size=1)
    prompts = read_prompts(options)
    strategy = strategy_of(options, interactive=prompts is None)
    sampling = sampling_from(options)  # wrong values are said before the checkpoint is read
    model = load_model(options, options.num_samples if prompts is None or len(prompts) == 1 else options.batch_size)
    model.check_writes()
    if options.raw:
        from lit_transformer.generation import Prompting

        model.prompting = Prompting(model.tokenizer, model.network.vocabulary)
    sampling["sampler"] = sampler_from(options, model)
    if options.cache is not None:
        if type(strategy) not in (Strategy, Agreement):
            raise UserError("--cache: only where texts are drawn token by token")
        sampling["remembering"] = remembering_from(options, model)
    strategy.prepare(model)
    if prompts is None:
        return converse(model, strategy, options, sampling)
    if strategy.moves_window and options.cache != "streaming":
        announce_window(model, prompts, options)
    with opened(options.output) as out:
        if len(prompts) == 1 and options.num_samples == 1 and not as_json(options) and strategy.streams:
            stream_one(model, prompts[0], sampling, out)
        else:
            write_all(model, strategy, prompts, options, sampling, out)
    if said := strategy.report():
        print(f"lit-transformer: {said}", file=sys.stderr)
    return EXIT_DONE


def announce_window(model: "Model", prompts: list[str], options: argparse.Namespace) -> None:
    """Says beforehand that the model will not see the whole text."""
    window = options.context or model.network.dims.max_len
    if window is None or model.network.reads_apart:
        return
    if any(model.tokenizer.unknown(prompt) is not None for prompt in prompts):
        return
    longest = max(len(model.tokenizer.encode(prompt)) for prompt in prompts)
    if window >= longest > window - options.max_new_tokens:
        print(f"lit-transformer: the context holds {window} tokens; when it is full, its older half is forgotten",
              file=sys.stderr)  # fmt: skip


def stream_one(model: "Model", prompt: str, sampling: dict[str, Any], out: TextIO) -> None:
    """One prompt and what follows it, as it comes; the answer alone of a model that answers."""
    write = writer(out)
    pieces = model.stream(prompt, **sampling)
    first = next(pieces, "")  # what is wrong with the prompt is said before anything is written
    write(shown(model, prompt) + first)
    for piece in pieces:
        write(piece)
    write("\n")
    out.flush()


def shown(model: "Model", prompt: str) -> str:
    """What stands before the new text: the prompt, where the text continues it."""
    return prompt if model.prompting.continues else ""


def write_all(
    model: "Model",
    strategy: Strategy,
    prompts: list[str],
    options: argparse.Namespace,
    sampling: dict[str, Any],
    out: TextIO,
) -> None:
    """All continuations of all prompts, in order."""
    write = writer(out)
    several = max(1, options.batch_size // options.num_samples)
    with progress("generating", len(prompts), out) as moved:
        for start in range(0, len(prompts), several):
            batch = prompts[start : start + several]
            try:
                completions = strategy.complete(
                    model, batch, {**sampling, "samples": options.num_samples, "seed": options.seed + start}
                )
            except UserError as error:
                which = "" if len(prompts) == 1 else f"prompts {start} to {start + len(batch) - 1}: "
                raise UserError(f"{which}{error}") from None
            for completion in completions:
                number = start + completion.prompt
                text = shown(model, prompts[number]) + completion.text
                if as_json(options):
                    write(json.dumps(record(model, prompts[number], number, completion), ensure_ascii=False) + "\n")
                elif len(prompts) == options.num_samples == 1:
                    write(f"{text}\n")
                else:
                    sample = f", sample {completion.sample}" if options.num_samples > 1 else ""
                    write(f"==> prompt {number}{sample} <==\n{text}\n\n")
            out.flush()
            moved(start + len(batch))


def record(model: "Model", prompt: str, number: int, completion: "Completion") -> dict[str, Any]:
    """One continuation as a JSON line."""
    said: dict[str, Any] = {
        "id": number, "sample": completion.sample, "prompt": prompt, "text": completion.text,
        "tokens": len(completion.tokens), "reason": completion.reason,
    }  # fmt: skip
    if completion.score is not None:
        said["score"] = completion.score
    if completion.log_probabilities:
        said["token_texts"] = [model.tokenizer.decode([token]) for token in completion.tokens]
        said["log_probabilities"] = completion.log_probabilities
    return said


def as_json(options: argparse.Namespace) -> bool:
    """Whether JSON lines are wanted."""
    return options.json or options.log_probabilities or str(options.output or "").endswith(".jsonl")


def converse(model: "Model", strategy: Strategy, options: argparse.Namespace, sampling: dict[str, Any]) -> int:
    """Asks for prompts until the input ends; what is wrong with one is said, and the next is asked for."""
    print("a line is a prompt; Ctrl-C ends a text, Ctrl-D the program", file=sys.stderr)
    turn = 0
    while True:
        try:
            prompt = input("> ")
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return EXIT_DONE
        except UnicodeDecodeError:
            print("lit-transformer: that was not UTF-8 text", file=sys.stderr)
            continue
        try:
            for sample in range(options.num_samples):
                seeded = {**sampling, "seed": options.seed + turn + sample}
                if strategy.streams:
                    stream_one(model, prompt, seeded, sys.stdout)
                else:
                    for completion in strategy.complete(model, [prompt], {**seeded, "samples": 1}):
                        writer(sys.stdout)(shown(model, prompt) + completion.text + "\n")
            turn += options.num_samples
        except UserError as error:
            print(f"lit-transformer: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            print()
