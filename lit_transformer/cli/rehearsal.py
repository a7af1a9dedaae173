"""Building what needs no data, before the data is prepared: a mistake is said in a second, not after the tokenizer."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.strategies import StrategyRegistry
from torch import nn

from lit_transformer.cli.compatibility import check_devices, check_hardware, check_name, check_strategy
from lit_transformer.cli.resolution import Resolution, trainer_parameters
from lit_transformer.errors import UserError
from lit_transformer.recipe.signatures import class_slot, members, parameters
from lit_transformer.recipe.suggest import hint
from lit_transformer.training.optimizers import parameter_groups
from lit_transformer.training.run_state import undisturbed
from lit_transformer.training.trainer import Trainer
from lit_transformer.vocabulary import Vocabulary

LARGE = 1 << 24
"""Tokens of the vocabulary that a network is tried with: more than any part asks for, and no memory on ``meta``."""


@dataclass(frozen=True)
class Rehearsal:
    """What a recipe names, built without data.

    Args:
        trainer: The section of the recipe.
        made: Its values as they are built.
        data: The arguments of the data, defaults among them; ``batch_size`` and ``batches`` as they are built.
        network: Built without memory.
        optimizer: Built for a handful of numbers.
    """

    trainer: dict[str, Any]
    made: dict[str, Any]
    data: dict[str, Any]
    network: Any
    optimizer: Any

    @property
    def callbacks(self) -> list[Any]:
        """Those of the recipe."""
        found = self.made.get("callbacks") or []
        return found if isinstance(found, list) else [found]

    @property
    def strategy(self) -> Any:
        """As it is built, or its name."""
        return self.made.get("strategy") or "auto"

    def check(self, strategy: Any, devices: int) -> None:
        """Refuses a strategy on so many devices, wherever they are.

        Raises:
            UserError: Naming the keys, and the edit to make.
        """
        check_strategy(self.trainer, self.data, strategy, devices, self.network, self.optimizer, self.callbacks)


def rehearse(resolution: Resolution) -> None:
    """Builds the task's parts and the Trainer of a recipe on this machine, and throws them away.

    The network is built without memory, for a vocabulary larger than any; the optimizer for a handful of numbers. The
    random generators are left as they were.

    Raises:
        Exception: Whatever a part's constructor has to say.
    """
    with _quietly():
        found = _built_parts(resolution)
        check_devices(found.trainer)
        trainer = Trainer(**{**found.made, "logger": False})
        check_hardware(found.callbacks)
        found.check(trainer.strategy, trainer.num_devices * trainer.num_nodes)


ELSEWHERE = {
    "accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "precision": "32-true",
}  # fmt: skip
"""What stands in for devices that are on another machine."""


def rehearse_elsewhere(resolution: Resolution) -> Rehearsal:
    """The same for devices that are not here: what needs none of them is built, and what stands beside them checked.

    Raises:
        Exception: Whatever a part's constructor has to say.
    """
    with _quietly():
        found = _built_parts(resolution)
        Trainer(**{**found.made, "logger": False, **ELSEWHERE})
        names = ["auto", *StrategyRegistry.available_strategies()]
        if isinstance(found.strategy, str) and found.strategy not in names:
            raise UserError(f"trainer.strategy: unknown strategy '{found.strategy}'{hint(found.strategy, names)}")
        return found


@contextmanager
def _quietly() -> Iterator[None]:
    chatter = logging.getLogger("lightning.pytorch")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with undisturbed(torch.device("cpu")):
            yield
    finally:
        chatter.setLevel(level)


def _built_parts(resolution: Resolution) -> Rehearsal:
    task = resolution.resolver.parts["model"]
    config = resolution.config["model"]["init_args"]
    slots = {name: p.annotation for name, p in parameters(task).items() if name in config and _is_part(p.annotation)}
    parts = _built(slots, config)
    data = _data(resolution)
    length = data.get("block_size") or data.get("max_len") or 1024
    vocabulary = Vocabulary(LARGE, pad_id=0, bos_id=1, eos_id=2, unk_id=3, mask_id=4, max_len=length)
    network = optimizer = None
    if "network" in parts:
        with torch.device("meta"):
            network = parts["network"](vocabulary)
    if "optimizer" in parts:
        optimizer = parts["optimizer"](parameter_groups(nn.Linear(2, 2)))
    if "schedule" in parts:
        parts["schedule"](resolution.config["trainer"]["max_steps"])
    trainer = {key: value for key, value in resolution.config["trainer"].items() if key != "logger"}  # wants a folder
    check_name(trainer)
    annotations = {name: p.annotation for name, p in trainer_parameters().items() if name in trainer}
    return Rehearsal(trainer, _built(annotations, trainer), data, network, optimizer)


BATCHES = ("batch_size", "batches")
"""Arguments of the data that say how much a device reads."""


def _data(resolution: Resolution) -> dict[str, Any]:
    """What the data are given, and what they take where nothing is given."""
    known = parameters(resolution.resolver.parts["data"])
    given = resolution.config["data"]["init_args"]
    built = _built({name: known[name].annotation for name in BATCHES if name in known and name in given}, given)
    return {**{name: p.default for name, p in known.items() if not p.required}, **given, **built}


def _is_part(annotation: Any) -> bool:
    return any(class_slot(option) for option in members(annotation))


def _built(annotations: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    parser = ArgumentParser(exit_on_error=False)
    for name, annotation in annotations.items():
        parser.add_argument(f"--{name}", type=annotation)
    parsed = parser.parse_object({name: config[name] for name in annotations})
    return dict(vars(parser.instantiate(parsed)))
