"""Starting a run from the weights of another one: of the same network, or of another task or architecture."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lit_transformer.checkpoints.loading import Weights, network_weights
from lit_transformer.errors import UserError
from lit_transformer.networks.base import Network
from lit_transformer.networks.parts import fill, named_state, shape_of, whole_of


class Tokenizer(Protocol):
    """What is compared of a tokenizer."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its content and special ids."""
        ...

    def to_json(self) -> str:
        """Its ``tokenizer.json``."""
        ...


@dataclass
class Start:
    """What became of the weights of a checkpoint.

    Args:
        path: The checkpoint.
        loaded: The checkpoint's name of each weight that was taken over, by the network's.
        partly: Why not all of a weight was taken over, by its name.
        new: Weights that the checkpoint does not have: they start as drawn from the seed.
        dropped: Weights of the checkpoint that the network has no place for.
    """

    path: Path
    loaded: dict[str, str] = field(default_factory=dict)
    partly: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For the user: loaded, new, dropped; parts that share a fate are named once."""
        names = _parts((name, source) for name, source in self.loaded.items())
        lines = [f"{self.path}: {len(self.loaded)} weights loaded, the run starts at step 0", _line("loaded", names)]
        lines += [f"  {name}: {why}" for name, why in sorted(self.partly.items())]
        for title, group in (("new, drawn from the seed", self.new), ("dropped", self.dropped)):
            if group:
                lines.append(_line(f"{title} ({len(group)})", _parts((name, name) for name in group)))
        return lines


def _parts(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Names of weights, each with the one it came from, by the layers and modules that they belong to."""
    layers: dict[tuple[str, str, str], set[int]] = {}
    for now, before in pairs:
        found, origin = (re.match(r"(.*?\.layers\.)(\d+)(\.cross_attention)?", name) for name in (now, before))
        if found is None or origin is None:
            layers.setdefault((now.rpartition(".")[0] or now, "", before.rpartition(".")[0] or before), set())
        else:
            layers.setdefault((found[1], found[3] or "", origin[1]), set()).add(int(found[2]))
    lines = []
    for (now, part, before), numbers in layers.items():
        shown = f"{min(numbers)}-{max(numbers)}" if len(numbers) > 1 else "".join(map(str, numbers))
        lines.append(f"{now}{shown}{part}" + ("" if now == before else f" (from {before}{shown})"))
    return sorted(lines)


def _line(title: str, names: Iterable[str]) -> str:
    return f"  {title}: {', '.join(names)}"


@torch.no_grad()
def start_from(
    network: Network,
    path: Path,
    checkpoint: Mapping[str, Any],
    tokenizer: Tokenizer | None = None,
    weights: Weights = "raw",
) -> Start:
    """Takes over the weights that fit by name, and says what became of the others.

    Between architectures the stack of an encoder, a decoder or a prefix-LM is the encoder and the decoder of an
    encoder-decoder (Rothe et al., 2020, arXiv:1907.12461), and the other way round. A vocabulary that was extended
    keeps the vectors of its old tokens, a longer table of positions those of the old positions.

    Args:
        network: Built, with its weights drawn.
        path: What errors call the checkpoint.
        checkpoint: Its content.
        tokenizer: The one of the new run.
        weights: ``raw`` the trained weights, ``ema`` their average, ``auto`` the average where there is one.

    Raises:
        UserError: Another tokenizer whose ids mean other text, sizes that differ, or nothing that fits.
    """
    _check_tokens(path, checkpoint, tokenizer)
    values = network_weights(path, checkpoint, weights)
    start = Start(path)
    first: dict[int, str] = {}
    used: set[str] = set()
    for name, target in named_state(network):
        shared = first.setdefault(id(target), name) if isinstance(target, nn.Parameter) else name
        source = next((each for each in _sources(name, network) if each in values), None)
        if shared != name:  # tied to a weight that was filled already
            used |= {source} if source is not None and _tied(source, shared, values, start) else set()
        elif source is None:
            start.new.append(name)
        else:
            _copy(start, name, source, target, values[source], checkpoint, network)
            used.add(source)
    start.dropped = [name for name in values if name not in used]
    start.dropped += [name for name in checkpoint["state_dict"] if not name.startswith("network.")]
    if not start.loaded:
        raise UserError(f"--init_from {path}: none of its weights fits this network; do they have the same parts?")
    return start


def _sources(name: str, network: Network) -> list[str]:
    """Names that a weight may have in a checkpoint of this or another architecture, the best first."""
    stack, _, rest = name.partition(".")
    decodes = type(network).new_cache is not Network.new_cache
    behind_cross, beside_cross = _sublayer(rest, {0: 0, 1: 2}), _sublayer(rest, {0: 0, 2: 1})
    table: dict[str, list[str | None]] = {
        "stack": [f"encoder.{rest}", behind_cross and f"decoder.{behind_cross}"],
        "encoder": [f"stack.{rest}"],
        "decoder": [beside_cross and f"stack.{beside_cross}"],
    }
    others = table.get(stack, [])
    return [name, *(other for other in (others[::-1] if decodes else others) if other)]


def _sublayer(rest: str, numbers: Mapping[int, int]) -> str | None:
    """A name in a layer with another number of sublayers; None where that layer has no such sublayer."""
    found = re.search(r"(residual\.\w+\.)(\d+)", rest)
    if found is None:
        return rest
    number = numbers.get(int(found[2]))
    return None if number is None else f"{rest[: found.start()]}{found[1]}{number}{rest[found.end() :]}"


def _tied(source: str, shared: str, values: Mapping[str, Tensor], start: Start) -> bool:
    """Whether the checkpoint's weight is the one that was taken over under the first name."""
    taken = values[start.loaded[shared]] if shared in start.loaded else None
    return taken is not None and (taken is values[source] or torch.equal(taken, values[source]))


def _copy(
    start: Start,
    name: str,
    source: str,
    target: Tensor,
    value: Tensor,
    checkpoint: Mapping[str, Any],
    network: Network,
) -> None:
    wanted = shape_of(target)
    if wanted != value.shape:
        before, now = checkpoint["vocabulary"]["size"], network.vocabulary.size
        by_token = (value.shape[:1], wanted[:1]) == ((before,), (now,))
        by_position = "position" in name
        if value.shape[1:] != wanted[1:] or not (by_token or by_position):
            raise UserError(
                f"--init_from {start.path}: {source} is {_shape(value.shape)}, here it is {_shape(wanted)}; "
                "use the sizes that it was trained with"
            )
        rows = min(before, now) if by_token else min(value.shape[0], wanted[0])
        what = "tokens" if by_token else "positions"
        start.partly[name] = f"{rows} of {wanted[0]} {what} loaded, the others are new"
        whole = whole_of(target)
        whole[:rows].copy_(value[:rows])
        fill(target, whole)
    else:
        fill(target, value)
    start.loaded[name] = source


def _shape(shape: torch.Size) -> str:
    return " x ".join(map(str, shape))


def _check_tokens(path: Path, checkpoint: Mapping[str, Any], tokenizer: Tokenizer | None) -> None:
    """Refuses ids that mean other text; one vocabulary may go on where the other ends."""
    stored = checkpoint.get("tokenizer_sha256")
    if tokenizer is None or stored is None or stored == tokenizer.fingerprint:
        return
    before, now = _tokens(checkpoint.get("tokenizer")), _tokens(tokenizer.to_json())
    common = before.keys() & now.keys()
    unlike = [number for number in sorted(common) if before[number] != now[number]]
    if unlike or not common:
        said = f": token {unlike[0]} was {before[unlike[0]]!r}, here {now[unlike[0]]!r}" if unlike else ""
        raise UserError(
            f"--init_from {path}: was trained with another tokenizer{said}; use the tokenizer.json of its run folder "
            "(data.tokenizer: {class_path: TokenizerFile, path: ...})"
        )


def _tokens(text: Any) -> dict[int, str]:
    """The tokens of a ``tokenizer.json`` by id."""
    try:
        content = json.loads(text)
        content = content.get("tokenizer", content)
        vocab = content["model"]["vocab"]
        pairs = vocab.items() if isinstance(vocab, dict) else ((entry[0], i) for i, entry in enumerate(vocab))
        added = {int(token["id"]): str(token["content"]) for token in content.get("added_tokens", [])}
        return {int(number): str(name) for name, number in pairs} | added
    except (TypeError, ValueError, KeyError, AttributeError, IndexError):
        return {}
