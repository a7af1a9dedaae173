"""A model comes in: configuration, weights and tokenizer of a folder become what a checkpoint holds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_transformer.errors import LitTransformerError, UserError
from lit_transformer.interop.config import Config
from lit_transformer.interop.families import family_of
from lit_transformer.interop.family import Family
from lit_transformer.interop.folder import Folder, WeightFiles
from lit_transformer.interop.section import Section, built, network_of
from lit_transformer.interop.table import Entry, outward
from lit_transformer.interop.tokens import Tokens
from lit_transformer.vocabulary import Vocabulary

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_REAL = ("F64", "F32", "F16", "BF16", "torch.float64", "torch.float32", "torch.float16", "torch.bfloat16")


@dataclass(frozen=True)
class Incoming:
    """A pre-trained model in this project's words.

    Args:
        section: The ``network`` section of a recipe, as short as it can be said.
        vocabulary: Sizes and special ids.
        weights: By the network's own names.
        tokens: The tokenizer and the roles of its special tokens; without a text where the folder has none.
        task: What a run is made for: the name of a task.
        family: The family's name.
        notes: What the user should know: weights left out.
    """

    section: Section
    vocabulary: Vocabulary
    weights: dict[str, Tensor] = field(repr=False)
    tokens: Tokens
    task: str
    family: str
    notes: tuple[str, ...] = ()

    def network(self) -> Any:
        """The network with its weights, in evaluation mode."""
        from lit_transformer.checkpoints.loading import fill

        with torch.device("meta"):
            network = built(self.section, self.vocabulary, self.family)
        fill(network, self.weights, self.family)
        return network.eval()


def read_folder(path: str | Path, dtype: str = "float32", allow_pickle: bool = False) -> Incoming:
    """Reads a model from a folder in the Hugging Face layout, or from one that ``export`` wrote in this project's own.

    No size is allocated before names and shapes of all weights were compared with the network's.

    Args:
        path: The folder.
        dtype: Type of the weights: float32, bfloat16 or float16.
        allow_pickle: Whether ``pytorch_model.bin`` may be opened.

    Raises:
        UserError: An unknown family, an option that no network of ours has, weights that are missing, too many or of
            another shape; always one line that names it.
    """
    folder = Folder(path, allow_pickle)
    values = folder.json("config.json")
    if values is None:
        raise UserError(f"{folder.path}: holds no config.json: it is not a model in the Hugging Face layout")
    where = str(folder.path / "config.json")
    files = folder.weights()
    name = values.get("model_type")
    if not isinstance(name, str):
        raise UserError(f"{where}: says no model_type")
    if name == NATIVE:
        return _native(folder, files, values, where, DTYPES[dtype])
    family = family_of(name, where)
    if values.get("quantization_config") is not None:
        raise UserError(f"{where}: quantization_config: quantized weights are not read; use a version without")
    names = family.renamed(files.shapes.keys())
    config = Config(values, where, frozenset(names))
    _check_counts(config, len(names))
    generation = Config(folder.json("generation_config.json") or {}, str(folder.path / "generation_config.json"))
    try:
        section = family.network(config)
        table = family.table(config)
    except UserError:
        raise
    except (ArithmeticError, ValueError, TypeError, KeyError, IndexError) as error:
        raise UserError(f"{where}: its sizes do not fit together: {error}") from error
    rows = config.size("vocab_size")
    tokens = Tokens.of(folder, config, generation, family.start_id(config, generation), family.task)
    vocabulary = tokens.vocabulary(rows)
    if vocabulary.size < rows:
        section["embedding"] = {**(section.get("embedding") or {"class_path": "Embedding"}), "rows": rows}
    network = _meta(section, vocabulary, where)
    weights, notes = _converted(family, config, table, files, names, network, str(folder.path), DTYPES[dtype])
    return Incoming(section, vocabulary, weights, tokens, family.task, family.model_type, tuple(notes))


NATIVE = "lit_transformer"
"""The ``model_type`` of folders that only this project reads."""


def _native(folder: Folder, files: WeightFiles, values: dict[str, Any], where: str, dtype: torch.dtype) -> Incoming:
    stored, section = values.get("vocabulary"), values.get("network")
    known = set(Vocabulary.__dataclass_fields__)
    if not isinstance(stored, dict) or not isinstance(section, dict | str) or not stored.keys() <= known:
        raise UserError(f"{where}: says neither network nor vocabulary of a model of this project")
    if not all(each is None or (type(each) is int and each >= 0) for each in stored.values()) or "size" not in stored:
        raise UserError(f"{where}: its vocabulary holds values that are no sizes or ids")
    _check_depth(section, len(files.shapes), where)
    section = {"class_path": section} if isinstance(section, str) else section
    vocabulary = Vocabulary(**stored)
    network = _meta(section, vocabulary, where)
    state = network.state_dict()
    table = [Entry((name,), (name,)) for name in _first_names(network)]
    _check_names(table, dict(zip(files.shapes, files.shapes, strict=True)), {}, set(), state, files, str(folder.path))
    weights = _tied(network, {name: _typed(value, dtype) for name, value in files.read(list(files.shapes))})
    text = folder.text("tokenizer.json")
    task = values.get("task")
    tokens = Tokens(text, {} if not isinstance(values.get("special_tokens"), dict) else values["special_tokens"])
    return Incoming(section, vocabulary, weights, tokens, task if isinstance(task, str) else "", NATIVE)


def _check_counts(config: Config, weights: int) -> None:
    """Refuses numbers of layers and experts that the weights cannot be of, before as many objects are made."""
    for key, value in config.values.items():
        counted = ("layer" in key and "idx" not in key) or "experts" in key
        if counted and type(value) is int and value > max(weights, 64):
            raise config.fault(key, f"is {value}, and there are {weights} weights")


def _check_depth(section: Any, weights: int, where: str) -> None:
    pairs = section.items() if isinstance(section, Mapping) else enumerate(section) if isinstance(section, list) else ()
    for key, value in pairs:
        if key in ("n_layers", "n_experts", "n_shared") and type(value) is int and value > max(weights, 64):
            raise UserError(f"{where}: {key} is {value}, and there are {weights} weights")
        _check_depth(value, weights, where)


def _meta(section: Section, vocabulary: Vocabulary, where: str) -> Any:
    """The network without memory.

    Raises:
        UserError: Its parts do not fit together.
    """
    try:
        network_of(section, where)
        with torch.device("meta"):
            return built(section, vocabulary, where)
    except LitTransformerError as error:
        raise UserError(f"{where}: {error}") from error
    except Exception as error:  # whatever a part's constructor makes of a stranger's values
        raise UserError(f"{where}: its network cannot be built: {' '.join(str(error).split())[:200]}") from error


def _converted(
    family: Family,
    config: Config,
    table: list[Entry],
    files: WeightFiles,
    names: dict[str, str],
    network: Any,
    where: str,
    dtype: torch.dtype,
) -> tuple[dict[str, Tensor], list[str]]:
    """All weights of the network, and notes on what was left out."""
    aliases = family.aliases(config)
    left_out = [name for name in names if any(re.fullmatch(p, name) for p in family.left_out(config))]
    ignored = [name for name in names if any(re.fullmatch(p, name) for p in family.ignored)]
    state = network.state_dict()
    shapes = _check_names(table, names, aliases, {*left_out, *ignored}, state, files, where)
    weights: dict[str, Tensor] = {}
    for entry in table:
        present = [each for each in entry.theirs if each in names]
        values = dict(files.read([names[each] for each in present]))
        theirs = [
            values[names[each]] if each in names else torch.zeros(shapes[each], dtype=torch.float32)
            for each in entry.theirs
        ]
        for each, value in entry.inward([_wide(value) for value in theirs]).items():
            weights[each] = _kept(value, dtype)
    for alias, canonical in aliases.items():
        if alias in names and canonical in names and alias not in left_out:
            (_, one), (_, other) = (next(iter(files.read([names[each]]))) for each in (alias, canonical))
            if not torch.equal(one, other):
                raise UserError(f"{where}: {alias} differs from {canonical}, which config.json says it is tied to")
    shown = sorted({re.sub(r"\d+", "*", name) for name in left_out})
    notes = [f"left out, as networks here have no place for it: {', '.join(shown)}"] if shown else []
    return _tied(network, weights), notes


def _check_names(
    table: list[Entry],
    names: dict[str, str],
    aliases: dict[str, str],
    others: set[str],
    state: Mapping[str, Tensor],
    files: WeightFiles,
    where: str,
) -> dict[str, tuple[int, ...]]:
    """Compares names and shapes of all weights with those of the network; nothing is read yet.

    Raises:
        UserError: Naming the first weight that is missing, of another shape, or too many.
    """
    wanted = {name: tuple(value.shape) for name, value in outward(table, state).items()}
    optional = {name for entry in table if entry.optional for name in entry.theirs}
    for name, shape in wanted.items():
        if name not in names:
            if name in optional:
                continue
            raise UserError(f"{where}: has no weight {name}, which its config.json asks for")
        found = files.shapes[names[name]]
        if found != shape:
            raise UserError(f"{where}: the shape of {name} is {found}, its config.json makes it {shape}")
        if files.dtypes[names[name]] not in _REAL:
            kind = files.dtypes[names[name]]
            raise UserError(f"{where}: {name} is of type {kind}, which is not read (quantized?); use another version")
    extra = [name for name in names if name not in wanted and name not in aliases and name not in others]
    if extra:
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise UserError(f"{where}: has a weight {extra[0]}{more}, for which this family has no place")
    return wanted


def _wide(value: Tensor) -> Tensor:
    return value if value.dtype == torch.float64 else value.to(torch.float32)


def _kept(value: Tensor, dtype: torch.dtype) -> Tensor:
    """With bytes of its own: views of a fused weight would be stored whole."""
    return value.to(dtype).clone(memory_format=torch.contiguous_format)


def _typed(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def _first_names(network: Any) -> list[str]:
    """The names of the network's weights, shared ones once."""
    again = {other for others in shared_names(network).values() for other in others}
    return [name for name in network.state_dict() if name not in again]


def _tied(network: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with every name of a shared one."""
    for first, others in shared_names(network).items():
        weights |= dict.fromkeys(others, weights[first])
    return weights


def shared_names(network: Any) -> dict[str, list[str]]:
    """Further names of weights that have several, by the first."""
    first: dict[int, str] = {}
    others: dict[str, list[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            others.setdefault(first[id(parameter)], []).append(name)
        else:
            first[id(parameter)] = name
    return others
