"""A model goes out: a checkpoint's network is written as a family of the ecosystem, or as this project's own folder."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_transformer.errors import EnvironmentFault, UserError
from lit_transformer.interop.config import Config
from lit_transformer.interop.families import FAMILIES, family_of
from lit_transformer.interop.family import Family
from lit_transformer.interop.incoming import DTYPES, NATIVE
from lit_transformer.interop.section import Section, canonical, differences
from lit_transformer.interop.table import Entry
from lit_transformer.interop.tokens import tokenizer_files
from lit_transformer.vocabulary import Vocabulary

SHARD_BYTES = 5 * 10**9
"""Most bytes of one file of weights."""


class Inexpressible(UserError):
    """The layout has no word for something in the network."""


def expressed(
    section: Section, vocabulary: Vocabulary, family: str | None = None, where: str = "the network"
) -> tuple[Family, dict[str, Any]]:
    """The family that says this network, and its configuration.

    A family says it if reading the configuration back gives the same network, in every option that changes what is
    computed.

    Args:
        section: The ``network`` section.
        vocabulary: Its vocabulary; the size is the number of rows of the embedding.
        family: The only family to try.
        where: What errors call it.

    Raises:
        Inexpressible: None does; the line names the option that stands in the way in the nearest family.
    """
    ours = canonical(section, vocabulary.max_len, where)
    tried = [family_of(family, "--family")] if family else list(FAMILIES.values())
    obstacles: list[tuple[int, str, str, Any, Any]] = []
    for each in tried:
        try:
            values = _configuration(each, ours, vocabulary)
            theirs = canonical(each.network(Config(values)), None, where)
        except (UserError, KeyError, IndexError, TypeError, ValueError, AttributeError):
            continue
        if theirs["dims"]["max_len"] is None:
            theirs["dims"]["max_len"] = ours["dims"]["max_len"]
        found = list(differences(ours, theirs))
        if not found:
            return each, values
        if found[0][0] != "network":  # another architecture altogether
            obstacles.append((len(found), each.model_type, *found[0]))
    if not obstacles:
        names = family or "no family"
        raise Inexpressible(f"{where}: {ours['class_path']} is not what {names} is; {_REMEDY}")
    _, name, key, mine, other = min(obstacles, key=lambda each: each[0])
    raise Inexpressible(
        f"{where}: cannot be said in the Hugging Face layout: network.{key} is {_shown(mine)}, in {name} (the nearest "
        f"family) it is {_shown(other)}; {_REMEDY}"
    )


_REMEDY = "--layout native writes a folder that this program alone loads"


def _shown(value: Any) -> str:
    text = "left out" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _configuration(family: Family, section: Section, vocabulary: Vocabulary) -> dict[str, Any]:
    values = {"architectures": [family.architecture], "model_type": family.model_type}
    return {**values, **family.config(section, vocabulary)}


def write_folder(
    target: str | Path,
    section: Section,
    vocabulary: Vocabulary,
    weights: Mapping[str, Tensor],
    tokenizer: str | None = None,
    layout: str = "huggingface",
    family: str | None = None,
    dtype: str | None = None,
    task: str = "",
    shard_bytes: int = SHARD_BYTES,
) -> Family | None:
    """Writes a model to a new folder, whole or not at all.

    Args:
        target: The folder, which must not hold anything yet.
        section: The ``network`` section.
        vocabulary: Its vocabulary.
        weights: Its weights, by the network's own names.
        tokenizer: The checkpoint's tokenizer.
        layout: "huggingface", or "native": this project's own, for what the other cannot say.
        family: The family to write; left out: the first that says the network.
        dtype: Type of the weights: float32, bfloat16, float16; left out: as they are.
        task: What the model was trained for, for the native layout.
        shard_bytes: Most bytes of one file of weights.

    Returns:
        The family; None for the native layout.

    Raises:
        Inexpressible: The layout cannot say the network.
        UserError: The folder holds something already.
        EnvironmentFault: It cannot be written.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: exists already; name a new folder")
    found: Family | None = None
    if layout == "native":
        config = {"model_type": NATIVE, "task": task, "vocabulary": asdict(vocabulary), "network": section}
        table = [Entry((name,), (name,)) for name in _apart(weights)]
        files: dict[str, Any] = {"config.json": config}
        if tokenizer is not None:
            files["tokenizer.json"] = json.loads(tokenizer)
    else:
        vocabulary = replace(vocabulary, size=weights["embedding.weight"].shape[0])
        found, config = expressed(section, vocabulary, family, str(target))
        table = found.table(Config(config))
        written = str(next(iter(weights.values())).dtype) if dtype is None else dtype
        config["dtype"] = written.removeprefix("torch.")
        files = {"config.json": config}
        if found.task != "MaskedLanguageModeling":
            tokens = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_eos_token_id")
            files["generation_config.json"] = {key: config[key] for key in tokens if config.get(key) is not None}
        if tokenizer is not None:
            files |= tokenizer_files(tokenizer, canonical(section, vocabulary.max_len)["dims"]["max_len"])
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        for name, content in files.items():
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            (partial / name).write_text(text, encoding="utf-8")
        _write_weights(partial, _values(table, weights, DTYPES.get(dtype or "")), shard_bytes)
        if target.is_dir():
            target.rmdir()
        os.replace(partial, target)
    except OSError as error:
        raise EnvironmentFault(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def _apart(weights: Mapping[str, Tensor]) -> list[str]:
    """The names of the weights, shared ones once."""
    first: dict[tuple[int, int, tuple[int, ...]], str] = {}
    for name, value in weights.items():
        place = value.untyped_storage().data_ptr(), int(value.storage_offset()), tuple(value.shape)
        first.setdefault(place, name)
    return list(first.values())


def _values(
    table: list[Entry], weights: Mapping[str, Tensor], dtype: torch.dtype | None
) -> Iterator[tuple[str, Tensor]]:
    for entry in table:
        ours = [weights[name] for name in entry.ours]
        wide = [value.to(torch.float32) if entry.steps and value.dtype != torch.float64 else value for value in ours]
        for name, value in entry.outward(wide).items():
            kind = dtype or ours[0].dtype
            value = value.to(kind) if value.is_floating_point() else value
            # safetensors wants bytes of its own for each: parts of a stack and tied weights share theirs
            yield name, value.clone(memory_format=torch.contiguous_format)


def _write_weights(folder: Path, values: Iterator[tuple[str, Tensor]], shard_bytes: int) -> None:
    from safetensors.torch import save_file

    shards: list[dict[str, Tensor]] = [{}]
    names: list[list[str]] = []
    held = total = 0

    def flush() -> None:
        if shards[0]:
            save_file(shards[0], folder / f"shard-{len(names)}", metadata={"format": "pt"})
            names.append(list(shards[0]))
        shards[0] = {}

    for name, value in values:
        if held and held + value.nbytes > shard_bytes:
            flush()
            held = 0
        shards[0][name] = value
        held += value.nbytes
        total += value.nbytes
    flush()
    if len(names) == 1:
        (folder / "shard-0").rename(folder / "model.safetensors")
        return
    table: dict[str, str] = {}
    for i, held_names in enumerate(names):
        file = f"model-{i + 1:05d}-of-{len(names):05d}.safetensors"
        (folder / f"shard-{i}").rename(folder / file)
        table |= dict.fromkeys(held_names, file)
    index = {"metadata": {"total_size": total}, "weight_map": table}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
