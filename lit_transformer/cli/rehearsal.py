"""Building what needs no data, before the data is prepared: a mistake is said in a second, not after the tokenizer."""

import logging
from typing import Any

import torch
from jsonargparse import ArgumentParser
from torch import nn

from lit_transformer.cli.compatibility import check_devices, check_name, check_strategy
from lit_transformer.cli.resolution import Resolution, trainer_parameters
from lit_transformer.recipe.signatures import class_slot, members, parameters
from lit_transformer.training.optimizers import parameter_groups
from lit_transformer.training.run_state import undisturbed
from lit_transformer.training.trainer import Trainer
from lit_transformer.vocabulary import Vocabulary

LARGE = 1 << 24
"""Tokens of the vocabulary that a network is tried with: more than any part asks for, and no memory on ``meta``."""


def rehearse(resolution: Resolution) -> None:
    """Builds the task's parts and the Trainer of a recipe, and throws them away.

    The network is built without memory, for a vocabulary larger than any; the optimizer for a handful of numbers. The
    random generators are left as they were.

    Raises:
        Exception: Whatever a part's constructor has to say.
    """
    chatter = logging.getLogger("lightning.pytorch")
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        with undisturbed(torch.device("cpu")):
            _build(resolution)
    finally:
        chatter.setLevel(level)


def _build(resolution: Resolution) -> None:
    task = resolution.resolver.parts["model"]
    config = resolution.config["model"]["init_args"]
    slots = {name: p.annotation for name, p in parameters(task).items() if name in config and _is_part(p.annotation)}
    parts = _built(slots, config)
    data = resolution.config["data"]["init_args"]
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
    check_devices(trainer)
    annotations = {name: p.annotation for name, p in trainer_parameters().items() if name in trainer}
    made = _built(annotations, trainer)
    strategy = Trainer(**{**made, "logger": False}).strategy
    callbacks = made.get("callbacks") or []
    check_strategy(
        trainer, data, strategy, network, optimizer, callbacks if isinstance(callbacks, list) else [callbacks]
    )


def _is_part(annotation: Any) -> bool:
    return any(class_slot(option) for option in members(annotation))


def _built(annotations: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    parser = ArgumentParser(exit_on_error=False)
    for name, annotation in annotations.items():
        parser.add_argument(f"--{name}", type=annotation)
    parsed = parser.parse_object({name: config[name] for name in annotations})
    return dict(vars(parser.instantiate(parsed)))
