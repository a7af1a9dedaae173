"""DeepSpeed's ZeRO in Lightning, on GPUs and on CPUs, with the single process's weights, losses and checkpoints."""

import argparse
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from lightning.pytorch.strategies import DeepSpeedStrategy, ParallelStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_transformer.errors import UserError
from lit_transformer.networks.base import Network
from lit_transformer.networks.parts import cut, fill, is_sharded, local, named_state
from lit_transformer.training.layout import Layout
from lit_transformer.training.partitions import Partitions

WHOLE = ("Muon", "Adafactor", "LBFGS", "SparseAdam", "Adagrad")
"""Optimizers that are other ones on a flat part of the weights, or that DeepSpeed replaces."""


class ZeRO(DeepSpeedStrategy):
    """Shares out what a device would hold beside its work (Rajbhandari et al., 2020, arXiv:1910.02054), by DeepSpeed.

    With stage 3 no device ever holds the whole network: each weight is drawn in full, one at a time, and shared out.
    The optimizer is the recipe's own, on the CPU too where its state is kept there. A checkpoint is one file with whole
    float32 tensors, the same as a single process writes, so that a run goes on with another number of devices, or
    another strategy.

    Args:
        stage: What is shared out: 1: optimizer state; 2: gradients too; 3: weights too.
        offload: What lies in the memory of the host: the optimizer state and its step, or with stage 3 all.
        bucket: Numbers that are sent at once.
        keep_whole: With stage 3, weights of up to so many numbers stay on every device once they were gathered.
        process_group_backend: ``nccl``, ``gloo``; left out: what the device has.
    """

    def __init__(
        self,
        stage: Literal[1, 2, 3] = 2,
        offload: Literal["nothing", "optimizer", "all"] = "nothing",
        bucket: int = 50_000_000,
        keep_whole: int = 100_000,
        process_group_backend: str | None = None,
    ) -> None:
        zero: dict[str, Any] = {
            "stage": stage, "contiguous_gradients": True, "overlap_comm": True, "reduce_scatter": True,
            "allgather_bucket_size": bucket, "reduce_bucket_size": bucket,
            "stage3_param_persistence_threshold": keep_whole,
        }  # fmt: skip
        if offload != "nothing":
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": False}
        if offload == "all":
            zero["offload_param"] = {"device": "cpu", "pin_memory": False}
        config = {
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,  # what is refused stands in WHOLE
            "zero_force_ds_cpu_optimizer": False,  # the recipe's optimizer, not one that computes otherwise
            "train_micro_batch_size_per_gpu": 1,  # DeepSpeed prints throughput with it, nothing else
        }
        if not torch.cuda.is_available():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")  # before DeepSpeed looks for itself, and warns
        super().__init__(
            config=config,
            process_group_backend=process_group_backend,
            logging_level=logging.ERROR,
        )
        self.stage = stage
        self.offload = offload
        self.partitions: Partitions | None = None
        """What knows this rank's parts, while training."""
        self._masters: dict[str, Tensor] = {}

    def setup_environment(self) -> None:
        """As Lightning's, without its refusal of CPUs, on which DeepSpeed runs over gloo."""
        from deepspeed.accelerator import get_accelerator

        if isinstance(self.accelerator, CPUAccelerator) and get_accelerator().device_name() != "cpu":
            raise UserError("trainer.accelerator: is cpu, but DeepSpeed took the GPU; set DS_ACCELERATOR=cpu before")
        self.precision_plugin = ZeROPrecision(self.precision_plugin.precision)  # type: ignore[arg-type]
        ParallelStrategy.setup_environment(self)
        self.setup_distributed()

    def setup_distributed(self) -> None:
        """Makes the process group."""
        import deepspeed

        if isinstance(self.accelerator, CPUAccelerator):
            # Its sums over shared memory would be compiled first, for minutes, and gloo has them.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
            self._process_group_backend = self._process_group_backend or "gloo"
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def layout(self, name: str, devices: int) -> Layout:
        """How so many devices are used."""
        return Layout(name, devices, stage=self.stage, masters=True, offload=self.offload)

    def build(self, task: Any, make: Callable[[], Network]) -> Network:
        """Builds a network; with stage 3 without memory, then weight by weight: each is shared out once it is there.

        Args:
            task: Whose network it is.
            make: Makes it.
        """
        if self.stage < 3:
            return make()
        with torch.device("meta"):
            network = make()
        self._init_config_if_needed()
        share_out(network, self.root_device, self.config)
        cast(Any, network).initialise(torch.initial_seed())
        return network

    def setup(self, trainer: Any) -> None:
        """Hands the network to DeepSpeed, and gives it back the digits that a narrower type takes."""
        assert self.model is not None
        if self.precision_plugin.precision != "32-true":
            self._masters = {name: local(p).detach().float().clone() for name, p in self.model.named_parameters()}
            narrow(self.model, cast(ZeROPrecision, self.precision_plugin)._desired_dtype)
        super().setup(trainer)
        if self.partitions is not None and self._masters:
            self.partitions.set_weights(self._masters)
            self.partitions.frozen = {
                name: self._masters[name]
                for name, p in self.partitions.module.named_parameters()
                if not p.requires_grad
            }
        self._masters = {}

    def init_deepspeed(self) -> None:
        """Training is DeepSpeed's; evaluation needs it only where no device can hold the network."""
        assert self.model is not None and self.lightning_module is not None
        if self.lightning_module.trainer.training:
            self._initialize_deepspeed_train(self.model)
        elif self.zero_stage_3:
            self._initialize_deepspeed_inference(self.model)
        else:
            self.model_to_device()

    def _setup_model_and_optimizer(
        self, model: nn.Module, optimizer: Optimizer | None, lr_scheduler: Any = None
    ) -> tuple[Any, Any]:
        import deepspeed

        assert optimizer is not None
        check_optimizer(optimizer)
        groups = [list(group["params"]) for group in optimizer.param_groups]
        engine, wrapped, _, _ = deepspeed.initialize(
            args=argparse.Namespace(device_rank=self.local_rank),
            config=self.config,
            model=model,
            model_parameters=[p for p in model.parameters() if p.requires_grad],
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            dist_init_required=False,
        )
        self.partitions = Partitions(model, wrapped, groups)
        return engine, wrapped

    def _initialize_deepspeed_inference(self, model: nn.Module) -> None:
        import deepspeed

        assert isinstance(self.config, dict)
        config = {key: value for key, value in self.config.items() if key not in ("gradient_clipping",)}
        config["zero_optimization"] = {**config["zero_optimization"]}
        config["zero_optimization"].pop("offload_optimizer", None)
        self.model, _, _, _ = deepspeed.initialize(
            args=argparse.Namespace(device_rank=self.local_rank), config=config, model=model, model_parameters=[],
            dist_init_required=False,
        )  # fmt: skip

    @contextmanager
    def model_sharded_context(self) -> Iterator[None]:
        """Nothing: ``build`` shares weights out, and draws them by their names."""
        with nullcontext():
            yield

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, **kwargs: Any) -> Tensor:
        """As Lightning's; the loss has been divided by the number of micro-batches already."""
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)

    def model_to_device(self) -> None:
        """Moves what DeepSpeed has not moved."""
        assert self.lightning_module is not None
        self.lightning_module.to(self.root_device)

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Weights are read before the optimizer takes its copy of them."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning hands the stored state to ``load_optimizer_state_dict``."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole float32 tensors, on the first rank; all ranks take part."""
        assert self.lightning_module is not None
        state: dict[str, Any] = self.lightning_module.state_dict()
        whole = state if self.partitions is None else self.partitions.whole_weights(state)
        return {name: value.cpu() if self.is_global_zero else None for name, value in whole.items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Whole tensors, numbered as in a single process; all ranks take part."""
        assert self.partitions is not None
        return self.partitions.optimizer_state(keep=self.is_global_zero)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """One file, by the first rank."""
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Verified and read as plain data, by every rank."""
        content: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path)
        return content

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """This rank's part of every weight, which are whole ones before they are shared out."""
        assert self.lightning_module is not None
        with torch.no_grad():
            for name, value in named_state(self.lightning_module):
                fill(value, checkpoint["state_dict"][name])
            if self.partitions is not None:  # who tries learning rates comes back in the middle of a run
                parameters = self.lightning_module.named_parameters()
                self.partitions.set_weights({name: cut(p, checkpoint["state_dict"][name]) for name, p in parameters})

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Keeps this rank's part of every moment."""
        assert self.partitions is not None
        self.partitions.load_optimizer_state(checkpoint["optimizer_states"][0])


class ZeROPrecision(DeepSpeedPrecision):
    """Lightning's, whose hooks before an optimizer step are called before optimizer steps only."""

    def optimizer_step(self, optimizer: Any, model: Any, closure: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """The engine counts micro-batches by itself and takes each of them."""
        closure()
        if not model.trainer.fit_loop._should_accumulate():
            self._after_closure(model, optimizer)
        return model.trainer.model.step(**kwargs)


def share_out(network: nn.Module, device: torch.device, config: Any) -> None:
    """Puts a part of each weight on this rank, for a network on the meta device; the weights are to be drawn then.

    Args:
        network: The network; its buffers get their memory, and no values.
        device: Where weights are gathered.
        config: DeepSpeed's, which says where the parts lie.
    """
    import deepspeed

    known: dict[int, nn.Parameter] = {}
    for module in list(network.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) not in known:
                whole = nn.Parameter(torch.zeros_like(parameter, device=device), parameter.requires_grad)
                if known:
                    next(iter(known.values())).convert_to_zero_parameters(param_list=[whole])  # type: ignore[attr-defined]
                else:
                    deepspeed.zero.Init(module=nn.ParameterList([whole]), config_dict_or_path=config)
                known[id(parameter)] = whole
            module.register_parameter(name, known[id(parameter)])
        for name, buffer in list(module.named_buffers(recurse=False)):
            lasting = name not in module._non_persistent_buffers_set
            module.register_buffer(name, torch.empty_like(buffer, device=device), persistent=lasting)


def narrow(module: nn.Module, dtype: torch.dtype) -> None:
    """Rounds what is shared out to the type that DeepSpeed computes in, as it does itself with whole weights."""
    for parameter in module.parameters():
        if is_sharded(parameter):
            parameter.data = parameter.data.to(dtype)
            part = local(parameter)
            part.data = part.data.to(dtype)


def check_optimizer(optimizer: Any) -> None:
    """Refuses what is not computed number by number.

    Raises:
        UserError: Naming the optimizer.
    """
    name = type(optimizer).__name__
    if name in WHOLE or "ScheduleFree" in name:
        raise UserError(f"model.optimizer: {name} needs whole matrices, which ZeRO flattens and shares out; use AdamW, "
                        "or --config overlays/strategy/ddp")  # fmt: skip
