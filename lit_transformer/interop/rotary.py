"""Rotary positions in a configuration: base and scalings, as versions 4 and 5 of ``transformers`` write them."""

import math
from typing import Any

from lit_transformer.interop.config import Config
from lit_transformer.interop.family import part
from lit_transformer.interop.section import Section, at


def rope_parameters(config: Config, nested: str | None = None) -> Config:
    """The keys and values of the rotary position; ``nested`` names those of a kind of layers."""
    found = config.part("rope_parameters", "rope_scaling") or Config({}, config.where)
    if nested is not None and isinstance(found.values.get(nested), dict):
        return found.part(nested) or found
    return found


def rope(config: Config, base: float = 10_000.0, nested: str | None = None, share: float | None = None) -> Section:
    """The position as a recipe says it.

    Args:
        config: The configuration.
        base: The base where it says none.
        nested: Kind of the layers that it is for, where there are several.
        share: Share of each head that turns where it says none.
    """
    found = rope_parameters(config, nested)
    base = found.number("rope_theta", default=config.number("rope_theta", "rotary_emb_base", default=base))
    turned = config.number("partial_rotary_factor", "rotary_pct", default=share)
    turned = found.number("partial_rotary_factor", default=turned)
    scaling = scaling_of(config, found)
    return part("RoPE", base=base, share=None if turned in (None, 1.0) else turned, scaling=scaling)


def scaling_of(config: Config, found: Config) -> Section | None:
    """The scaling of a rotary position; None: none."""
    kind = found.text("rope_type", "type", default="default")
    longest = config.size("max_position_embeddings", default=2048)
    trained = found.size("original_max_position_embeddings", default=longest)
    trained = config.size("original_max_position_embeddings", default=trained)
    if kind == "default":
        return None
    factor = found.number("factor", default=None)
    if factor is None and kind == "yarn":
        factor = longest / trained
    if factor is None:
        raise found.fault("factor", "is missing")
    if kind == "linear":
        return part("LinearScaling", factor=factor)
    if kind == "dynamic":
        return part("DynamicNTK", factor=factor, trained_len=longest)
    if kind == "llama3":
        low, high = found.number("low_freq_factor"), found.number("high_freq_factor")
        return part("Llama3Scaling", factor=factor, trained_len=trained, low=low, high=high)
    if kind == "yarn":
        found.refuse("truncate", True)
        fast, slow = found.number("beta_fast", default=32.0), found.number("beta_slow", default=1.0)
        temperature = yarn_temperature(found, factor)
        return part("YaRN", factor=factor, trained_len=trained, beta_fast=fast, beta_slow=slow, temperature=temperature)
    raise found.fault("rope_type", f"is {kind!r}; known: default, linear, dynamic, yarn, llama3")


def yarn_temperature(found: Config, factor: float) -> float | None:
    """What YaRN multiplies cosines and sines by, where it is not the paper's."""
    given = found.number("attention_factor", default=None)
    some, every = found.number("mscale", default=0.0), found.number("mscale_all_dim", default=0.0)
    if given is None and some and every:
        return float(mscale(factor, some) / mscale(factor, every))
    return given  # type: ignore[no-any-return]


def mscale(factor: float, weight: float = 1.0) -> float:
    """YaRN's temperature, with DeepSeek's weight of it."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def rope_config(position: Any) -> dict[str, Any]:
    """The keys and values of a position in a configuration, which both versions read."""
    result: dict[str, Any] = {"rope_theta": at(position, "base", 10_000.0), "rope_scaling": None}
    share = at(position, "share", 1.0)
    if share != 1.0:
        result["partial_rotary_factor"] = share
    scaling = at(position, "scaling")
    kind = at(scaling, "class_path")
    if kind in ("LinearScaling", "DynamicNTK"):
        names = {"LinearScaling": "linear", "DynamicNTK": "dynamic"}
        result["rope_scaling"] = {"rope_type": names[kind], "factor": scaling["factor"]}
    elif kind == "Llama3Scaling":
        result["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": scaling["factor"],
            "low_freq_factor": scaling["low"],
            "high_freq_factor": scaling["high"],
            "original_max_position_embeddings": scaling["trained_len"],
        }
    elif kind == "YaRN":
        result["rope_scaling"] = {
            "rope_type": "yarn",
            "factor": scaling["factor"],
            "beta_fast": scaling["beta_fast"],
            "beta_slow": scaling["beta_slow"],
            "attention_factor": scaling["temperature"],
            "original_max_position_embeddings": scaling["trained_len"],
        }
    return result
