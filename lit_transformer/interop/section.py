"""A network as plain data: the ``network`` section of a recipe, in one canonical form, and what two of them differ in.

In the canonical form every class is said by its short name, every value by its key, every layer by itself, and what
does not change what a trained network computes is left out: two sections with the same one are the same function of
the same weights.
"""

import importlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, get_args, get_origin

from lit_transformer.networks.base import Network
from lit_transformer.recipe.allow import current_list
from lit_transformer.recipe.building import import_rooms
from lit_transformer.recipe.overlay import normalised
from lit_transformer.recipe.resolve import Resolver
from lit_transformer.recipe.signatures import EMPTY, class_slot, is_sizes, members, parameters, unwrapped
from lit_transformer.recipe.tree import Mapping, Mark, from_plain
from lit_transformer.recipe.values import is_list
from lit_transformer.vocabulary import Vocabulary

Section = dict[str, Any]

IRRELEVANT = ("initialisation", "kernel", "dropout", "dispatch", "sublayers", "rate", "rows")
"""Arguments that do not change what a trained network computes."""

ALIASES = {"SwiGLU": "SiLU", "GEGLU": "GELU", "ReGLU": "ReLU", "GLU": "Sigmoid", "Bilinear": "Identity"}
"""Feed-forwards that are ``Gated`` with an activation."""


def network_of(section: Any, where: str) -> Section:
    """The network as it is said in a recipe or a checkpoint, resolved: full class paths, arguments checked.

    Raises:
        RecipeError: It does not fit its classes, or names something that is not on the list.
    """
    import_rooms()
    resolver = Resolver(current_list())
    mark = Mark(where)
    tree = from_plain(section, mark)
    full = resolver.value(normalised(tree) if isinstance(tree, Mapping) else tree, factory(), "", mark)
    resolver.check()
    return full  # type: ignore[no-any-return]


def factory() -> Any:
    """The type of the slot that a network stands in."""
    return Callable[[Vocabulary], Network]


def built(section: Any, vocabulary: Any, where: str) -> Any:
    """The network itself, on the device that is current.

    Checked by the resolver of recipes, and put together right here: ``recipe.building`` has jsonargparse check it once
    more, which takes a fifth of a second a layer.
    """
    return constructed(network_of(section, where), factory())(vocabulary)


def constructed(value: Any, annotation: Any) -> Any:
    """What a resolved value stands for in a slot of this type: an object, a factory, a list of them, or itself."""
    options = members(annotation)
    if isinstance(value, list):
        of_items = [get_args(unwrapped(option)) for option in options if is_list(option)]
        return [constructed(each, of_items[0][0] if of_items and of_items[0] else Any) for each in value]
    if not isinstance(value, dict):
        return value
    slots = [(slot[0], get_origin(unwrapped(option))) for option in options if (slot := class_slot(option))]
    if "class_path" not in value:
        return slots[0][0](**value) if slots and is_sizes(slots[0][0]) else value
    module, _, name = value["class_path"].rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    known = parameters(cls)
    arguments = {key: constructed(each, known[key].annotation) for key, each in value.get("init_args", {}).items()}
    kind = next(kind for base, kind in slots if issubclass(cls, base))
    return partial(cls, **arguments) if kind is Callable else cls(**arguments)


def canonical(section: Any, max_len: int | None = None, where: str = "network") -> Section:
    """The canonical form.

    Args:
        section: As it is said in a recipe or a checkpoint.
        max_len: What ``dims.max_len`` is where the section leaves it to the data.
        where: What errors call it.
    """
    plain: Section = _filled(network_of(section, where))
    name = plain["class_path"]
    dims = plain["dims"] = _dims(plain, max_len)
    layers = plain.pop("layer")
    own_mask, own_position = plain.pop("mask", None), plain["position"]
    mask = own_mask or {"class_path": {"EncoderOnly": "Full", "PrefixLM": "PrefixCausal"}.get(name, "Causal")}
    plain["layer"] = _layers(layers, dims["n_layers"], mask, own_position, name == "EncoderDecoder")
    if name == "EncoderDecoder":
        plain["encoder"] = _encoder(plain.get("encoder") or {}, plain, layers)
    for node in _nodes(plain):
        _settle(node, dims)
    return plain


def _encoder(own: Section, plain: Section, layers: Any) -> Section:
    n_layers = own.get("n_layers") or plain["dims"]["n_layers"]
    position = own.get("position") or plain["position"]
    mask = own.get("mask") or {"class_path": "Full"}
    return {
        "n_layers": n_layers,
        "layer": _layers(own.get("layer") or layers, n_layers, mask, position, False),
        "position": position,
    }


def _layers(pattern: Any, n_layers: int, mask: Section, position: Section, crossed: bool) -> list[Section]:
    pattern = pattern if isinstance(pattern, list) else [pattern]
    result = []
    for i in range(n_layers):
        layer = dict(pattern[i % len(pattern)])
        layer["mask"] = layer.get("mask") or mask
        layer["position"] = layer.get("position") or position
        if not crossed:
            layer.pop("cross_attention", None)
        result.append(_copied(layer))
    return result


def _dims(plain: Section, max_len: int | None) -> Section:
    from lit_transformer.dims import Dims

    dims = Dims(**(plain.get("dims") or {})).with_max_len(max_len)
    layers = plain["layer"]
    first = (layers[0] if isinstance(layers, list) else layers)["feed_forward"]
    gated = first["class_path"] == "Gated" or first["class_path"] in ALIASES
    gated = gated or first.get("expert", {}).get("class_path") in (*ALIASES, "Gated")
    width = -(-(8 * dims.d_model // 3) // 8) * 8 if gated else 4 * dims.d_model
    return {
        "d_model": dims.d_model,
        "n_layers": dims.n_layers,
        "n_heads": dims.n_heads,
        "n_kv_heads": dims.kv_heads,
        "head_dim": dims.head_size,
        "d_ff": dims.d_ff or width,
        "max_len": dims.max_len,
    }


def _settle(node: Section, dims: Section) -> None:
    """Writes one way what can be said in several, in place."""
    name = node["class_path"]
    if name in ALIASES:
        node["class_path"], node["activation"] = "Gated", {"class_path": ALIASES[name]}
        if ALIASES[name] == "GELU":
            node["activation"]["approximate"] = "none"
    if name == "Attention" or name == "CrossAttention":
        node["output_bias"] = node["bias"] if node.get("output_bias") is None else node["output_bias"]
    if name == "MixtureOfExperts":
        shifting = [each for each in node.get("balance") or [] if each["class_path"] == "BiasBalancing"]
        node["balance"] = shifting
        node["d_expert"] = node.get("d_expert") or dims["d_ff"]
    if name in ("LinearScaling", "NTK"):
        node.pop("trained_len", None)
    if name in ("DynamicNTK", "YaRN", "Llama3Scaling", "InterpolatedLearned"):
        node["trained_len"] = node.get("trained_len") or dims["max_len"]
    if name == "YaRN" and node.get("temperature") is None:
        node["temperature"] = 0.1 * math.log(node["factor"]) + 1.0
    if name == "LatentAttention":
        for key in ("content_size", "value_size"):
            node[key] = node.get(key) or dims["head_dim"]
        node["rank"] = node.get("rank") or 4 * dims["head_dim"]


def _filled(node: Any) -> Any:
    """Every class by its short name, with all of its plain arguments."""
    if isinstance(node, list):
        return [_filled(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "class_path" not in node:
        return {key: _filled(value) for key, value in node.items()}
    given = node.get("init_args", {})
    module, _, name = node["class_path"].rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    ours = module.startswith("lit_transformer.")
    result = {"class_path": name if ours else node["class_path"]}
    for key, parameter in parameters(cls).items():
        if key in IRRELEVANT:
            continue
        if key in given:
            result[key] = _filled(given[key])
        elif parameter.default is not EMPTY and not _is_part(parameter):
            result[key] = parameter.default
    return result


def _is_part(parameter: Any) -> bool:
    """Whether the default is an object: a dataclass, a class (which the resolver has said in full)."""
    if parameter.default is None:
        return False
    return any(class_slot(option) for option in members(parameter.annotation)) or callable(parameter.default)


def _nodes(value: Any) -> Iterator[Section]:
    if isinstance(value, list):
        for each in value:
            yield from _nodes(each)
    elif isinstance(value, dict):
        if "class_path" in value:
            yield value
        for each in list(value.values()):
            yield from _nodes(each)


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return [_copied(each) for each in value]
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return value


def differences(a: Any, b: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two canonical forms differ: key path and both values, the nearest to the root first."""
    if isinstance(a, dict) and isinstance(b, dict):
        if a.get("class_path") != b.get("class_path"):
            yield key or "network", a.get("class_path"), b.get("class_path")
            return
        for name in [*a, *(name for name in b if name not in a)]:
            yield from differences(a.get(name), b.get(name), f"{key}.{name}" if key else name)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from differences(left, right, f"{key}[{i}]")
    elif _number(a) and _number(b):
        if not math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12):
            yield key, a, b
    elif a != b:
        yield key, _named(a), _named(b)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _named(value: Any) -> Any:
    return value.get("class_path", "other keys") if isinstance(value, dict) else value


def at(section: Any, path: str, default: Any = None) -> Any:
    """The value at a key path (``layer.0.attention.bias``); the default where the path does not lead anywhere."""
    for part in path.split("."):
        if isinstance(section, list):
            section = section[int(part)] if part.isdigit() and int(part) < len(section) else None
        elif isinstance(section, dict):
            section = section.get(part)
        else:
            return default
        if section is None:
            return default
    return section
