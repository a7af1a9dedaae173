"""``benchmark.py loop``: what the Trainer adds to a step, with progress bar, TensorBoard and all that ``fit`` turns on.

The same network, loss, optimizer, schedule and batches in a bare loop, in Lightning's Trainer with nothing on, in ours
as ``lit-transformer fit`` sets it up (without checkpoints and validation, which are paid by interval, not by step).
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from bench.harness import Case, add_common, progress, publish, race
from bench.train import SIZES, Options, Prepare, tokens

WARM = 5
"""Steps before the clock starts."""


def task_of(options: Options) -> Any:
    """The language-modelling task on GPT-2's parts."""
    import torch

    from lit_transformer.dims import Dims
    from lit_transformer.networks.decoder_only import DecoderOnly
    from lit_transformer.tasks.language_modeling import LanguageModeling
    from lit_transformer.vocabulary import Vocabulary

    dims = Dims(options["d_model"], options["layers"], options["heads"], max_len=options["context"])
    optimizer = partial(torch.optim.AdamW, lr=1e-4, fused=True)
    network = partial(DecoderOnly, dims=dims)
    return LanguageModeling(network, Vocabulary(options["vocab"]), WARM + options["loop_steps"], optimizer)


class Batches:
    """The same batch again and again."""

    def __init__(self, options: Options) -> None:
        import torch

        from lit_transformer.data.batch import LanguageBatch

        inputs, targets = tokens(options)
        positions = torch.arange(options["context"]).expand_as(inputs)
        ids = torch.arange(options["batch"])
        self.batch = LanguageBatch(inputs, positions, ids, torch.tensor(targets.numel()), targets=targets)

    def __iter__(self) -> Iterator[Any]:
        return itertools.repeat(self.batch)


def timed(options: Options, run: Callable[[Callable[[int], None]], None]) -> Case:
    """A case whose round is a run of ``WARM + loop_steps`` steps; ``run`` reports the number of steps done."""
    steps = options["loop_steps"]

    def step() -> tuple[float, float]:
        clock: list[tuple[float, float]] = []

        def done(number: int) -> None:
            if number in (WARM, WARM + steps):
                clock.append((time.perf_counter(), time.process_time()))

        run(done)
        (wall, cpu), (end, cpu_end) = clock
        return (end - wall) / steps, (cpu_end - cpu) / steps

    return Case(step, tokens=options["batch"] * options["context"])


def bare(options: Options) -> Prepare:
    """Forward, loss, backward, optimizer, schedule; nothing else."""
    import lit_transformer.tasks  # noqa: F401

    def prepare() -> Case:
        def run(done: Callable[[int], None]) -> None:
            task = task_of(options)
            task.configure_model()
            configured = task.configure_optimizers()
            optimizer, rate = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
            task.train()
            for number, batch in enumerate(itertools.islice(Batches(options), WARM + options["loop_steps"]), start=1):
                optimizer.zero_grad(set_to_none=True)
                output = task.network(batch.tokens)
                loss = task.loss(output.hidden, output.head, batch.targets) / batch.window_tokens
                loss.backward()
                optimizer.step()
                rate.step()
                done(number)

        return timed(options, run)

    return prepare


def fitted(options: Options, trainer: Callable[..., Any]) -> Case:
    """A Trainer's fit."""
    from lightning.pytorch import Callback

    class Stopwatch(Callback):
        def __init__(self, done: Callable[[int], None]) -> None:
            self.done = done

        def on_train_batch_end(self, *arguments: Any) -> None:
            self.done(arguments[0].global_step)

    def run(done: Callable[[int], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer(folder, Stopwatch(done)).fit(task_of(options), Batches(options))

    return timed(options, run)


def lightning(options: Options) -> Prepare:
    """Lightning's Trainer without bar, logger and checkpoints."""
    import lightning.pytorch as pl

    def trainer(folder: str, stopwatch: Any) -> Any:
        return pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=WARM + options["loop_steps"],
            callbacks=[stopwatch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )

    return lambda: fitted(options, trainer)


def ours(options: Options) -> Prepare:
    """Our Trainer with the callbacks and the logger that ``fit`` gives every run."""
    from lit_transformer.cli.defaults import TRAINING_CALLBACKS, loggers, with_defaults
    from lit_transformer.training.trainer import Trainer

    def trainer(folder: str, stopwatch: Any) -> Any:
        settings: dict[str, Any] = {"enable_checkpointing": False}
        return Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=WARM + options["loop_steps"],
            callbacks=[*with_defaults(None, TRAINING_CALLBACKS, settings), stopwatch],
            logger=loggers(None, folder),
            limit_val_batches=0,
            enable_model_summary=False,
            default_root_dir=folder,
            **settings,
        )

    return lambda: fitted(options, trainer)


CONTESTANTS: dict[str, Callable[[Options], Prepare]] = {"bare": bare, "ours": ours, "lightning": lightning}


def add_parser(commands: Any) -> None:
    """The options of ``benchmark.py loop``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "loop",
        help="what the Trainer adds to a bare loop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python scripts/benchmark.py loop --size tiny --loop-steps 200",
    )
    add_common(parser, rounds=5)
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny", help="size of the network (default: tiny)")
    parser.add_argument("--loop-steps", type=int, default=200, help="steps of a round (default: 200)")
    parser.add_argument("--batch", type=int, help="sequences in a step, instead of the size's")
    parser.add_argument(
        "--contestants", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS), help="(default: all)"
    )
    parser.set_defaults(run=main)


def main(arguments: argparse.Namespace) -> int:
    """Run the race and print its table."""
    options: Options = dict(SIZES[arguments.size]) | {"threads": arguments.threads, "precision": "fp32"}
    options |= {"loop_steps": arguments.loop_steps, "batch": arguments.batch or SIZES[arguments.size]["batch"]}
    contestants = race("loop", arguments.contestants, options, arguments.rounds, arguments.steps, progress)
    remarks = [f"ms is one step, of {arguments.loop_steps} in a round."]
    return publish(
        arguments, f"loop, size {arguments.size}, batch {options['batch']}", options, contestants, ["bare"], remarks
    )
