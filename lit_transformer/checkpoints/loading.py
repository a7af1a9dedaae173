"""From a checkpoint file to a network that can be used, with nothing else at hand."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from lit_transformer.checkpoints.adapters import without_adapters
from lit_transformer.checkpoints.parts import EMA
from lit_transformer.checkpoints.reading import read
from lit_transformer.errors import LitTransformerError, UserError
from lit_transformer.networks.base import Network
from lit_transformer.networks.parts import shape_of
from lit_transformer.vocabulary import Vocabulary

Weights = Literal["auto", "raw", "ema"]
_PREFIX = "network."  # the task's attribute


class Tokenizer(Protocol):
    """What is compared of a tokenizer."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its content and special ids."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A network and what belongs to it.

    Args:
        network: In evaluation mode, on the CPU.
        vocabulary: Sizes and special ids that it was built for.
        tokenizer: The text of its ``tokenizer.json``; ``None`` where the data had none.
        step: Optimizer steps of training.
        path: The file.
        fingerprint: The tokenizer's fingerprint when the checkpoint was written.
        others: The task's own weights beside the network (a label head), under the task's names.
        checkpoint: The rest of the file's content.
    """

    network: Network
    vocabulary: Vocabulary
    tokenizer: str | None
    step: int
    path: Path
    fingerprint: str | None = None
    others: dict[str, Tensor] = field(default_factory=dict, repr=False)
    checkpoint: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def task(self) -> str | None:
        """Name of the class of the task that trained it; None where the file does not say."""
        stored = self.checkpoint.get("hyper_parameters")
        name = stored.get("class_path") if isinstance(stored, Mapping) else None
        return name.rpartition(".")[2] if isinstance(name, str) else None

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The task's arguments, as the recipe said them."""
        stored = self.checkpoint.get("hyper_parameters")
        section = stored.get("init_args", stored) if isinstance(stored, Mapping) else None
        return section if isinstance(section, Mapping) else {}

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Refuses another tokenizer than the one of training; see ``check_tokenizer``."""
        check_tokenizer(self.path, self.checkpoint, tokenizer)


def load_network(path: str | Path, weights: Weights = "auto") -> Loaded:
    """Builds the network that a checkpoint describes and fills in its weights.

    The description is plain data, and only classes on the closed list (and what ``--allow`` added) are built from it.
    It is built without memory first and compared with the weights, so that no size in a stranger's file is allocated
    before there are that many bytes of weights.

    Args:
        path: A checkpoint file.
        weights: ``ema`` the average, ``raw`` the trained ones, ``auto`` the average where there is one.

    Raises:
        UserError: Not a good checkpoint, or its network and its weights do not fit together.
    """
    path = Path(path)
    checkpoint = read(path)
    vocabulary = _vocabulary(path, checkpoint)
    everything = task_weights(path, checkpoint, weights)
    values = {name.removeprefix(_PREFIX): value for name, value in everything.items() if name.startswith(_PREFIX)}
    factory = _network_factory(path, checkpoint, len(values))
    try:
        with torch.device("meta"):
            network = factory(vocabulary)
    except Exception as error:  # whatever a part's constructor makes of a stranger's values
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: its network cannot be built: {said}") from error
    fill(network, values, str(path))
    network.eval()
    return Loaded(
        network=network,
        vocabulary=vocabulary,
        tokenizer=checkpoint.get("tokenizer"),
        step=checkpoint["global_step"],
        path=path,
        fingerprint=checkpoint.get("tokenizer_sha256"),
        others={name: value for name, value in everything.items() if not name.startswith(_PREFIX)},
        checkpoint={k: v for k, v in checkpoint.items() if k not in ("state_dict", "optimizer_states", EMA)},
    )


def network_weights(path: str | Path, checkpoint: Mapping[str, Any], weights: Weights = "auto") -> dict[str, Tensor]:
    """The network's weights in a checkpoint, under the network's own names.

    Raises:
        UserError: As ``task_weights``.
    """
    state = task_weights(path, checkpoint, weights)
    return {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}


def task_weights(path: str | Path, checkpoint: Mapping[str, Any], weights: Weights = "auto") -> dict[str, Tensor]:
    """All weights in a checkpoint, under the task's names, adapters folded in.

    Raises:
        UserError: The average is asked for and there is none, or a value is no plain tensor with its own bytes.
    """
    state: dict[str, Any] = dict(checkpoint["state_dict"])
    average = checkpoint.get(EMA)
    if weights == "ema" and not isinstance(average, Mapping):
        raise UserError(f"{path}: holds no averaged weights (the run had no EMA callback); use the raw ones")
    if weights != "raw" and isinstance(average, Mapping):
        aliases = average.get("aliases", {})
        for name, value in average["weights"].items():
            for alias in aliases.get(name, [name]):
                state[alias] = value
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{path}: {name} is not a plain tensor")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"{path}: {name} claims more elements than the file holds")
    return without_adapters(state)


def fill(network: nn.Module, values: Mapping[str, Tensor], source: str) -> None:
    """Puts weights in a network, which may be on the meta device; every name and shape must fit.

    Raises:
        UserError: Naming the first weight that does not fit.
    """
    wanted = network.state_dict()
    check_fit(wanted, values, source)
    on_meta = any(tensor.is_meta for tensor in wanted.values())
    tied = _tied(network)
    network.load_state_dict(dict(values), assign=on_meta)
    for first, others in tied.items():
        for name in others:  # assigning gave each name a parameter of its own
            owner, _, attribute = name.rpartition(".")
            setattr(network.get_submodule(owner), attribute, network.get_parameter(first))


def check_fit(wanted: Mapping[str, Any], values: Mapping[str, Any], source: str) -> None:
    """Compares the names and shapes of weights with those that a network wants.

    Raises:
        UserError: Naming the first weight that does not fit.
    """
    for name in sorted(wanted.keys() | values.keys()):
        if name not in values:
            raise UserError(f"{source}: has no weight {name}, which this network needs")
        if name not in wanted:
            raise UserError(f"{source}: has a weight {name}, for which this network has no place")
        if isinstance(wanted[name], Tensor) and not hasattr(values[name], "shape"):  # one in a folder of parts has
            raise UserError(f"{source}: {name} is not a tensor")
        if isinstance(wanted[name], Tensor) and shape_of(wanted[name]) != values[name].shape:
            shapes = f"{tuple(values[name].shape)}, this network's {tuple(shape_of(wanted[name]))}"
            raise UserError(f"{source}: the shape of {name} is {shapes}")


def check_tokenizer(path: str | Path, checkpoint: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    """Refuses a tokenizer that is not the one of training: ids would mean other text.

    Raises:
        UserError: The fingerprints, which cover the special ids, differ.
    """
    stored = checkpoint.get("tokenizer_sha256")
    if stored is not None and stored != tokenizer.fingerprint:
        raise UserError(
            f"{path}: was trained with another tokenizer ({stored[:12]}, here {tokenizer.fingerprint[:12]}); "
            "use the tokenizer.json of its run folder"
        )


def _tied(network: nn.Module) -> dict[str, list[str]]:
    first: dict[int, str] = {}
    others: dict[str, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            others.setdefault(first[id(parameter)], []).append(name)
        else:
            first[id(parameter)] = name
    return others


def _vocabulary(path: Path, checkpoint: Mapping[str, Any]) -> Vocabulary:
    stored = checkpoint.get("vocabulary")
    names = {each.name for each in fields(Vocabulary)}
    if not isinstance(stored, Mapping) or not stored.keys() <= names or not isinstance(stored.get("size"), int):
        raise UserError(f"{path}: holds no vocabulary; it was written by another program")
    if not all(value is None or (type(value) is int and value >= 0) for value in stored.values()):
        raise UserError(f"{path}: its vocabulary holds values that are no sizes or ids")
    return Vocabulary(**stored)


def _network_factory(path: Path, checkpoint: Mapping[str, Any], tensors: int) -> Callable[[Vocabulary], Network]:
    from lit_transformer.recipe.building import build

    stored = checkpoint.get("hyper_parameters")
    section = stored.get("init_args", stored) if isinstance(stored, Mapping) else None
    config = section.get("network") if isinstance(section, Mapping) else None
    if config is None:
        raise UserError(f"{path}: does not say which network it holds (no 'network' among its hyperparameters)")
    for key, value in _numbers(config):
        if key == "n_layers" and value > tensors:
            raise UserError(f"{path}: says {value} layers and holds {tensors} weights")
    try:
        factory: Callable[[Vocabulary], Network] = build(Callable[[Vocabulary], Network], config, source=str(path))
    except LitTransformerError as error:
        raise UserError(str(error)) from error
    return factory


def _numbers(config: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(config, Mapping):
        for name, value in config.items():
            yield from _numbers(value, str(name))
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _numbers(value, key)
    elif isinstance(config, int | float) and not isinstance(config, bool):
        yield key, config
