"""Adapters alone, in the layout of PEFT: a few megabytes beside a model of the ecosystem."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_transformer.checkpoints.adapters import DOWN, MAGNITUDE, SCALE, UP
from lit_transformer.errors import EnvironmentFault, UserError
from lit_transformer.interop.config import Config
from lit_transformer.interop.family import Family
from lit_transformer.interop.outgoing import expressed
from lit_transformer.interop.section import Section
from lit_transformer.interop.table import Entry
from lit_transformer.interop.transforms import PairsApart, Scaled, Transposed
from lit_transformer.vocabulary import Vocabulary

TASKS = {"AutoModelForCausalLM": "CAUSAL_LM", "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM"}


def write_adapters(
    target: str | Path,
    section: Section,
    vocabulary: Vocabulary,
    state: Mapping[str, Tensor],
    family: str | None = None,
    base: str | None = None,
) -> Family:
    """Writes the adapters of a run to a new folder, which ``PeftModel.from_pretrained`` loads onto their base model.

    Args:
        target: The folder, which must not hold anything yet.
        section: The ``network`` section.
        vocabulary: Its vocabulary.
        state: Weights and adapters, as a checkpoint of the run holds them.
        family: The family of the base model; left out: the first that says the network.
        base: What the folder calls the base model.

    Returns:
        The family.

    Raises:
        UserError: There are no adapters, or one stands on a weight that is only a part of one of the family's.
    """
    from safetensors.torch import save_file

    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: exists already; name a new folder")
    values = {name.removeprefix("network."): value for name, value in state.items()}
    owners = sorted(name.removesuffix(f".{DOWN}") for name in values if name.endswith(f".{DOWN}"))
    if not owners:
        raise UserError(f"{target}: the checkpoint holds no adapters; train with the callback LoRA or DoRA")
    found, config = expressed(section, vocabulary, family, str(target))
    table = {entry.ours[0]: entry for entry in found.table(Config(config)) if len(entry.ours) == len(entry.theirs) == 1}
    tensors: dict[str, Tensor] = {}
    modules, transposed = [], False
    for owner in owners:
        entry = table.get(f"{owner}.weight")
        if entry is None or not all(isinstance(step, Scaled | PairsApart | Transposed) for step in entry.steps):
            raise UserError(
                f"{target}: {owner} is only a part of a weight of {found.model_type}, so that its adapter cannot stand "
                "alone; export the whole model (without --layout peft)"
            )
        transposed = transposed or any(isinstance(step, Transposed) for step in entry.steps)
        module = entry.theirs[0].removesuffix(".weight")
        modules.append(module)
        name = f"base_model.model.{module}"
        tensors[f"{name}.lora_A.weight"] = values[f"{owner}.{DOWN}"].contiguous()
        tensors[f"{name}.lora_B.weight"] = _rows(entry, values[f"{owner}.{UP}"])
        if f"{owner}.{MAGNITUDE}" in values:
            tensors[f"{name}.lora_magnitude_vector"] = _rows(entry, values[f"{owner}.{MAGNITUDE}"])
    rank = values[f"{owners[0]}.{DOWN}"].shape[0]
    about: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": TASKS.get(found.auto_class),
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": float(values[f"{owners[0]}.{SCALE}"]) * rank,
        "lora_dropout": 0.0,
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "use_dora": any(key.endswith("lora_magnitude_vector") for key in tensors),
        "inference_mode": True,
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        save_file(tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})
        (target / "adapter_config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise EnvironmentFault(f"{target}: cannot be written: {error.strerror or error}") from error
    return found


def _rows(entry: Entry, value: Tensor) -> Tensor:
    """What stands row by row beside the weight, with what is done to the weight's rows on the way out."""
    values = [value]
    for step in reversed(entry.steps):
        values = values if isinstance(step, Transposed) else step.outward(values)
    return values[0].contiguous()
