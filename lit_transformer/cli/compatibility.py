"""Strategies and what they can be combined with: what cannot be is said before any process is started."""

import importlib.util
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch.callbacks import LearningRateFinder

from lit_transformer.data.batch_size import AcrossDevices
from lit_transformer.data.bucketing import TokenBudget
from lit_transformer.dims import SizeError
from lit_transformer.errors import UserError
from lit_transformer.training import context_parallel, expert_parallel, float8
from lit_transformer.training.callbacks.lora import LoRA
from lit_transformer.training.context_parallel import ContextParallel
from lit_transformer.training.ema import EMA
from lit_transformer.training.expert_parallel import ExpertParallel
from lit_transformer.training.float8 import Float8
from lit_transformer.training.layout import layout_of
from lit_transformer.training.muon import Muon
from lit_transformer.training.nonfinite import NonFinite
from lit_transformer.training.sharding import check
from lit_transformer.training.strategy import Sharded
from lit_transformer.training.zero import ZeRO, check_optimizer

FSDP1 = ("fsdp", "FSDPStrategy")


def check_name(trainer: dict[str, Any]) -> None:
    """Refuses strategies by name, before Lightning builds them.

    Args:
        trainer: The section of the recipe.

    Raises:
        UserError: FSDP1, or a strategy whose package is missing.
    """
    strategy = trainer.get("strategy")
    name = str(strategy.get("class_path", "") if isinstance(strategy, dict) else strategy or "")
    last = name.rpartition(".")[2]
    if last in FSDP1 or last.startswith("fsdp_"):
        raise UserError(
            f"trainer.strategy: {last} is FSDP1, which is not supported; use --config overlays/strategy/fsdp2"
        )
    deepspeed = last.lower().startswith("deepspeed")
    if (deepspeed or last == "ZeRO") and importlib.util.find_spec("deepspeed") is None:
        raise UserError(f"trainer.strategy: {last} needs a package: pip install 'lit-transformer[deepspeed]'; "
                        "or use --config overlays/strategy/fsdp2")  # fmt: skip
    if deepspeed:
        raise UserError(f"trainer.strategy: {last} draws other weights and writes checkpoints of its own; use --config "
                        "overlays/strategy/deepspeed_{zero1,zero2,zero3,zero3_offload}")  # fmt: skip


def check_devices(trainer: dict[str, Any]) -> None:
    """Refuses devices that are not there, before Lightning looks for them.

    Args:
        trainer: The section of the recipe.

    Raises:
        UserError: Naming the key, and what there is.
    """
    accelerator = str(trainer.get("accelerator") or "auto")
    present = torch.cuda.device_count()
    if accelerator in ("gpu", "cuda") and not present and not (accelerator == "gpu" and torch.mps.is_available()):
        raise UserError(f"trainer.accelerator: is {accelerator}, but torch finds no GPU here; use cpu, or install "
                        "torch's build for your GPU")  # fmt: skip
    devices = trainer.get("devices")
    wanted = len(devices) if isinstance(devices, list) else devices
    if accelerator in ("gpu", "cuda", "auto") and present and str(wanted).isdigit() and int(str(wanted)) > present:
        raise UserError(f"trainer.devices: is {wanted}, but this machine has {present} GPU{'s' * (present > 1)}; use "
                        f"{present}, or more trainer.num_nodes")  # fmt: skip


def check_hardware(callbacks: Iterable[Any]) -> None:
    """Refuses callbacks that need another device than there is.

    Args:
        callbacks: Those of the recipe.

    Raises:
        UserError: Naming what there is.
    """
    if any(isinstance(callback, Float8) for callback in callbacks):
        float8.check_hardware()


def check_strategy(
    trainer: dict[str, Any],
    data: dict[str, Any],
    strategy: Any,
    devices: int,
    network: Any,
    optimizer: Any,
    callbacks: Iterable[Any],
) -> None:
    """Refuses what cannot be combined, wherever the devices are.

    Args:
        trainer: The section of the recipe.
        data: The arguments of the data, defaults among them; ``batch_size`` and ``batches`` as they are built.
        strategy: As it is built, or its name where it is not ours.
        devices: Their number, on all nodes.
        network: Built without memory.
        optimizer: Built for a handful of numbers.
        callbacks: Those of the recipe.

    Raises:
        UserError: Naming the keys, and the edit to make.
    """
    layout = layout_of(strategy, "", devices)
    callbacks = list(callbacks)
    shared = isinstance(strategy, Sharded) and strategy.tensor_parallel > 1
    if shared and any(isinstance(callback, Float8) for callback in callbacks):
        raise UserError("trainer.callbacks: Float8 has no products of weights that tensor parallelism cuts; use "
                        "--config overlays/strategy/fsdp2")  # fmt: skip
    if isinstance(rows := data.get("batch_size"), AcrossDevices):
        rows.on_each(layout.data)
    if isinstance(strategy, ZeRO):
        _check_zero(strategy, trainer, optimizer, callbacks)
    if isinstance(strategy, Sharded) and isinstance(optimizer, Muon):
        raise UserError("model.optimizer: Muon needs whole matrices, which trainer.strategy shards; use AdamW, or "
                        "--config overlays/strategy/ddp")  # fmt: skip
    if not isinstance(strategy, Sharded):
        return
    if any(isinstance(callback, LoRA) for callback in callbacks):
        raise UserError("trainer.callbacks: LoRA adds weights that Sharded would not spread; use --config "
                        "overlays/strategy/ddp, where adapters cost next to nothing")  # fmt: skip
    if isinstance(strategy, ExpertParallel):
        expert_parallel.check(network, devices)
    if isinstance(strategy, ContextParallel):
        context_parallel.check(network, layout.context, data)
    if layout.tensor > 1:
        _check_tensor_parallel(layout.tensor, data, network)


def _check_zero(strategy: ZeRO, trainer: dict[str, Any], optimizer: Any, callbacks: Iterable[Any]) -> None:
    check_optimizer(optimizer)
    if strategy.offload == "all" and strategy.stage < 3:
        raise UserError(f"trainer.strategy.offload: all needs stage 3, not {strategy.stage}; use optimizer")
    if trainer.get("gradient_clip_algorithm") == "value" and trainer.get("gradient_clip_val"):
        raise UserError("trainer.gradient_clip_algorithm: ZeRO clips by norm only; take the key out, or use --config "
                        "overlays/strategy/ddp")  # fmt: skip
    precision = str(trainer.get("precision") or "32-true")
    if precision.startswith("16"):
        raise UserError(f"trainer.precision: is {precision}, where DeepSpeed scales losses unseen by what watches "
                        "gradients; use --config overlays/bf16, or --config overlays/strategy/fsdp2")  # fmt: skip
    for callback in callbacks:
        if isinstance(callback, EMA) and precision not in ("32", "32-true"):
            raise UserError(f"trainer.callbacks: EMA averages float32 weights, of which DeepSpeed keeps a rounded copy "
                            f"in {precision}; use --config overlays/strategy/fsdp2")  # fmt: skip
        if isinstance(callback, LearningRateFinder):
            raise UserError("trainer.callbacks: LearningRateFinder cannot try rates with DeepSpeed; try them "
                            "on one device, or with --config overlays/strategy/ddp")  # fmt: skip
        if isinstance(callback, LoRA) and strategy.stage == 3:
            raise UserError("trainer.callbacks: LoRA adds weights that ZeRO-3 would not spread; use --config "
                            "overlays/strategy/ddp, where adapters cost next to nothing")  # fmt: skip
        if isinstance(callback, NonFinite) and (callback.max_skipped or callback.spike_sigma is not None):
            raise UserError("trainer.callbacks: NonFinite cannot skip a window of DeepSpeed's; take out max_skipped "
                            "and spike_sigma, or use --config overlays/strategy/fsdp2")  # fmt: skip


def _check_tensor_parallel(devices: int, data: dict[str, Any], network: Any) -> None:
    try:
        check(network, devices)
    except SizeError as error:
        raise UserError(f"model.network.{error}" if str(error).startswith("dims.") else str(error)) from error
    if "batches" in data:  # rows are padded to multiples
        multiple = (data["batches"] or TokenBudget()).multiple
        if multiple % devices:
            raise UserError(f"data.batches.multiple: multiples of {multiple} tokens cannot be shared by {devices} "
                            f"tensor-parallel devices; make it a multiple of {devices}")  # fmt: skip
    elif isinstance(length := data.get("block_size"), int) and length % devices:
        raise UserError(f"data.block_size: {length} tokens cannot be shared by {devices} tensor-parallel devices; make "
                        f"it a multiple of {devices}")  # fmt: skip
