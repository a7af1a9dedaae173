"""The verbs as a study calls them: in a process of its own, with recipes from files and numbers as the answer."""

import json
import operator
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser

from lit_transformer import __version__
from lit_transformer.analysis.mask_picture import draw_mask
from lit_transformer.blocks.layer import Layer
from lit_transformer.blocks.masks import Causal
from lit_transformer.blocks.stack import Stack
from lit_transformer.checkpoints.finding import find_newest
from lit_transformer.checkpoints.loading import fill, network_weights
from lit_transformer.checkpoints.reading import read
from lit_transformer.cli.arguments import Arguments
from lit_transformer.cli.evaluation import evaluated
from lit_transformer.cli.rehearsal import rehearse
from lit_transformer.cli.resolution import Resolution
from lit_transformer.cli.training import TrainingCLI, locating, quiet, run
from lit_transformer.data.batch_size import rows_on_each
from lit_transformer.data.bucketing import BucketedLoader, TokenBudget
from lit_transformer.networks.base import Network
from lit_transformer.recipe.tree import Mapping
from lit_transformer.studies.parts import Probe
from lit_transformer.studies.program import Facts
from lit_transformer.training.layout import layout_of

HISTORY = ("trainer.callbacks+", "[History]")
"""What every cell keeps beside what its recipe asks for."""


class CellCLI(TrainingCLI):
    """The same for many evaluations: what differs in the data alone is not parsed again, nor rehearsed.

    Parsing takes jsonargparse a second, and the steps of a cell differ in little.
    """

    parsed: ClassVar[dict[str, Namespace]] = {}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the data alone where the rest was parsed before."""
        key = json.dumps([self.verb, {name: value for name, value in args.items() if name != "data"}], default=str)
        if key in self.parsed:
            self.config = self.parsed[key].clone()
            data = ArgumentParser(exit_on_error=False)
            data.add_argument("--data", type=LightningDataModule)
            self.config.data = data.parse_object({"data": args["data"]}).data
        else:
            super().parse_arguments(parser, args)
            self.parsed[key] = self.config.clone()

    def rehearse(self) -> None:
        """Nothing: whatever is built here is built in no time."""


class Verbs:
    """Fit, validate and test for the cells of a study.

    Args:
        allow: Packages of ``--allow``.
    """

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self.allow = list(allow)

    def begin(self, threads: int) -> None:
        """Sets this process up for computing."""
        torch.set_num_threads(threads)
        quiet()

    def check(self, recipe: Mapping) -> None:
        """Checks a recipe against everything it names."""
        Resolution(recipe, self.allow)

    def inspect(self, recipe: Mapping) -> Facts:
        """Checks a recipe, prepares its data and builds its network without memory."""
        resolution = Resolution(recipe, self.allow)
        with locating(resolution):
            rehearse(resolution)
            cli = CellCLI(resolution, "validate")
            cli.datamodule.prepare_data()
            with torch.device("meta"):
                cli.model.configure_model()
        network, data, trainer = cli.model.network, cli.datamodule, cli.trainer
        ranks = layout_of(trainer.strategy, "", trainer.world_size).data
        length = int(network.dims.max_len or getattr(data, "block_size", 0) or 1)
        steps = trainer.accumulate_grad_batches * trainer.max_steps
        if isinstance(budget := getattr(data, "batches", None), TokenBudget):
            read = counted(data.train_dataloader(), steps * budget.together(ranks))
            each = network.flops_by_sequence(length)
            flops = sum(map(operator.mul, each, read.tokens)) / sum(read.tokens) - hidden_flops(network, length)
            return Facts(network.parameter_count(), sum(read.tokens), flops, read.targets)
        rows = rows_on_each(getattr(data, "batch_size", 1), ranks) * ranks * getattr(data, "block_size", 1)
        flops = float(network.flops_per_token(length)) - hidden_flops(network, length)
        return Facts(network.parameter_count(), int(rows * steps), flops)

    def fit(self, recipe: Path, folder: Path, start: Path | None) -> None:
        """Trains a recipe, or goes on with the run in the folder."""
        going_on = folder.is_dir() and find_newest(folder) is not None
        arguments = Arguments(
            "fit",
            configs=[str(recipe)],
            overrides=[HISTORY],
            allow=self.allow,
            resume=going_on,
            init_from=None if going_on or start is None else str(start),
            output=str(folder),
        )
        words = ["fit", "--config", str(recipe), f"--{HISTORY[0]}", HISTORY[1], "--output", str(folder)]
        words += ["--resume"] if going_on else ["--init_from", str(start)] if start is not None else []
        run(arguments, words)

    def evaluate(self, verb: str, recipe: Path, checkpoint: Path) -> dict[str, float]:
        """The metrics of a checkpoint on a split."""
        resolution = self._resolution(verb, recipe)
        with locating(resolution):
            return evaluated(CellCLI(resolution, verb), str(checkpoint))

    def probe(self, probe: Probe, recipe: Path, checkpoint: Path) -> dict[str, float]:
        """What a probe measures of a checkpoint."""
        resolution = self._resolution("validate", recipe)
        with locating(resolution):
            cli = CellCLI(resolution, "validate")
            cli.datamodule.prepare_data()
            cli.model.configure_model()
            fill(cli.model.network, network_weights(checkpoint, read(checkpoint)), str(checkpoint))
            cli.model.network.to(cli.trainer.strategy.root_device)
            return probe(cli.model, cli.datamodule)

    def versions(self) -> dict[str, str]:
        """What computed."""
        import lightning

        device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
        return {
            "lit_transformer": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "lightning": lightning.__version__,
            "system": platform.platform(),
            "device": device,
        }

    def _resolution(self, verb: str, recipe: Path) -> Any:
        return Resolution(Arguments(verb, configs=[str(recipe)]).recipe(), self.allow)


COUNTED = 500
"""Batches that are looked at to know what batches of rows of unlike length hold."""


class Counted(NamedTuple):
    """What a training on rows of unlike length reads.

    Args:
        tokens: Places of all batches, padding included, of each sequence of a row: of sources and targets, or of one.
        targets: What a loss is taken of.
    """

    tokens: list[int]
    targets: int


def counted(loader: BucketedLoader, batches: int) -> Counted:
    """What so many batches hold, from the first of them."""
    tokens, targets = np.zeros(1, dtype=np.int64), 0
    looked_at, count = min(batches, COUNTED), len(loader.rows)
    for batch in range(looked_at):
        ids = loader.ids(batch)
        lengths = loader.rows.lengths(int(ids[0]) // count)[ids % count].reshape(len(ids), -1)
        tokens = tokens + len(ids) * loader.budget.widths(lengths)
        targets += int(loader.rows.target_counts(ids).sum())
    return Counted((tokens * batches // looked_at).tolist(), targets * batches // looked_at)


def hidden_flops(network: Network, length: int) -> float:
    """The part of ``flops_per_token`` that masks take away: the scores of pairs that causal attention would compute.

    The causal half counts in full there, so a sparse mask counts for its share of the lower triangle.
    """
    stack = getattr(network, "stack", None)
    if not isinstance(stack, Stack):
        return 0.0
    dims, whole = network.dims, draw_mask(Causal(), length).visible
    share = {mask: min(1.0, draw_mask(mask, length).visible / whole) for mask in stack.masks}
    hidden = 0.0
    for layer in stack.layers:
        assert isinstance(layer, Layer)
        hidden += 12 * dims.n_heads * dims.head_size * length * (1 - share[layer.own_mask or stack.mask])
    return hidden


def _processor() -> str:
    """The name of the CPU, as far as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
