"""Networks spread over devices in Lightning: FSDP2, tensor parallelism, or both, with checkpoints like any other's."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import loss_parallel
from torch.optim import Optimizer

from lit_transformer.checkpoints.manifest import is_folder_of_parts
from lit_transformer.checkpoints.sharded import Stored, read_shared
from lit_transformer.errors import UserError
from lit_transformer.networks.base import Network
from lit_transformer.networks.parts import cut, fill, local, named_state
from lit_transformer.training.checkpoint_forms import CheckpointForm, OneFile
from lit_transformer.training.layout import Layout
from lit_transformer.training.muon import Muon
from lit_transformer.training.sharding import spread


class Sharded(ModelParallelStrategy):
    """Spreads the network over all devices.

    Ranks that see different data share weights, gradients and optimizer state (FSDP2, ZeRO-3: Rajbhandari et al., 2020,
    arXiv:1910.02054); ``tensor_parallel_size`` devices share each row of data (Megatron-LM's tensor and sequence
    parallelism). A run goes on with another number of devices, whatever form its checkpoints have.

    Args:
        tensor_parallel_size: Devices that share each row; 1: none do.
        data_parallel_size: Groups that see different data; left out: all devices over ``tensor_parallel_size``.
        process_group_backend: ``nccl``, ``gloo``; left out: what the device has.
        checkpoints: ``Parts``: folders to which every rank writes its part; left out: one file with whole tensors.
    """

    def __init__(
        self,
        tensor_parallel_size: int = 1,
        data_parallel_size: int | None = None,
        process_group_backend: str | None = None,
        checkpoints: CheckpointForm | None = None,
    ) -> None:
        if tensor_parallel_size < 1:
            raise UserError(f"trainer.strategy.tensor_parallel_size: is {tensor_parallel_size}, must be at least 1")
        super().__init__(
            data_parallel_size="auto" if data_parallel_size is None else data_parallel_size,
            tensor_parallel_size=tensor_parallel_size,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
        )
        self.checkpoints = checkpoints or OneFile()

    @property
    def tensor_parallel(self) -> int:
        """Devices that share each row."""
        return int(self._tensor_parallel_size)

    @property
    def policy(self) -> MixedPrecisionPolicy | None:
        """Mixed precisions compute with rounded weights, so that they are gathered rounded: half as much is sent."""
        types = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        rounded = types.get(str(self.precision_plugin.precision))
        if rounded is None:
            return None
        return MixedPrecisionPolicy(param_dtype=rounded, reduce_dtype=torch.float32, cast_forward_inputs=False)

    def setup_environment(self) -> None:
        """Divides the devices."""
        self._data_parallel_size = self.divide(self.num_nodes * self.num_processes)
        super().setup_environment()

    def divide(self, devices: int) -> int:
        """Number of groups of devices that see different data.

        Raises:
            UserError: They do not come out even.
        """
        tensor = self.tensor_parallel
        if devices % tensor:
            raise UserError(
                f"trainer.strategy.tensor_parallel_size: {tensor} does not divide the {devices} devices; "
                f"valid: {', '.join(str(n) for n in range(1, devices + 1) if devices % n == 0)}"
            )
        data = devices // tensor if self._data_parallel_size == "auto" else int(self._data_parallel_size)
        if data * tensor != devices:
            raise UserError(
                f"trainer.strategy.data_parallel_size: {data} x tensor_parallel_size {tensor} is not the number of "
                f"devices, {devices}; leave it out"
            )
        return data

    def layout(self, name: str, devices: int) -> Layout:
        """How so many devices are used."""
        return Layout(name, self.divide(devices), tensor=self.tensor_parallel, stage=3)

    def build(self, task: Any, make: Callable[[], Network]) -> Network:
        """Builds a network without memory, then spreads it.

        Args:
            task: Whose network it is.
            make: Makes it.
        """
        with torch.device("meta"):
            network = make()
        self.spread(task, network)
        return network

    def spread(self, task: Any, network: Network) -> None:
        """Spreads a network that lies on the meta device, and draws its weights.

        Args:
            task: Whose network it is.
            network: The network.
        """
        mesh = self.device_mesh
        assert mesh is not None
        spread(network, mesh, torch.initial_seed(), self.root_device, self.policy)
        if self.tensor_parallel > 1:
            loss_parallel().__enter__()  # for good: every loss of this process is of logits that are shared out

    def setup_optimizers(self, trainer: Any) -> None:
        """Refuses optimizers that need whole matrices.

        Raises:
            UserError: Muon.
        """
        super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            if isinstance(optimizer, Muon):
                raise UserError(
                    "model.optimizer: Muon needs whole matrices, which this strategy shards; use AdamW, or strategy ddp"
                )
            settle(optimizer)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning hands the stored state to ``load_optimizer_state_dict``."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """This rank's parts."""
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """This rank's parts, numbered as in a single process."""
        state: dict[str, Any] = getattr(optimizer, "_optimizer", optimizer).state_dict()
        return state

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """In the form that was chosen; all ranks take part."""
        if storage_options is not None:
            raise UserError("storage_options are not supported: checkpoints are local files")
        self.checkpoints.save(checkpoint, Path(filepath), self)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Verified and read as plain data, by every rank; of a folder's tensors each will read its part alone."""
        if is_folder_of_parts(Path(checkpoint_path)):
            return read_shared(Path(checkpoint_path))
        content: dict[str, Any] = self.checkpoint_io.load_checkpoint(checkpoint_path)
        return content

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Keeps this rank's part of every weight."""
        assert self.lightning_module is not None
        stored = checkpoint["state_dict"]
        with torch.no_grad():
            for name, value in named_state(self.lightning_module):
                fill(value, stored[name])

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Keeps this rank's part of every moment."""
        for optimizer, stored in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {
                number: {key: part_like(parameters[number], value) for key, value in values.items()}
                for number, values in stored["state"].items()
            }
            optimizer.load_state_dict({**stored, "state": state})
            settle(optimizer)


def part_like(parameter: Tensor, value: Any) -> Any:
    """A whole tensor cut as the parameter is; what has another shape (a step count) stays as it is."""
    if not isinstance(value, Tensor | Stored) or not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value.part_of(torch.empty(0)) if isinstance(value, Stored) else value
    part = torch.zeros_like(parameter.detach(), dtype=value.dtype)
    local(part).copy_(cut(parameter, value))  # type: ignore[arg-type]
    return part


def settle(optimizer: Optimizer) -> None:
    """One tensor at a time where a group's tensors lie on different meshes, or only some of them are shared out."""
    for group in optimizer.param_groups:
        if len({mesh_of(parameter) for parameter in group["params"]}) > 1:
            group.update({key: False for key in ("foreach", "fused") if key in group})


def mesh_of(parameter: Tensor) -> Any:
    """What tensors must have in common to be handled together."""
    return parameter.device_mesh if isinstance(parameter, DTensor) else None


@torch.no_grad()
def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """Length of the whole gradient over all devices; parameters may lie on several meshes, or on none."""
    squares = [parameter.grad.float().square().sum() for parameter in parameters if parameter.grad is not None]
    whole = [square.full_tensor() if isinstance(square, DTensor) else square for square in squares]
    return torch.stack(whole).sum().sqrt()


@torch.no_grad()
def clip_by_norm(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """Scales gradients so that their norm, over all devices, is at most ``limit``; the norm before."""
    parameters = list(parameters)
    norm = gradient_norm(parameters)
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    for gradient in (parameter.grad for parameter in parameters if parameter.grad is not None):
        local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
        local.mul_(scale.to(local.device))
    return norm


@torch.no_grad()
def clip_by_value(parameters: Iterable[Tensor], limit: float) -> None:
    """Bounds every number of the gradients, each device its own."""
    for parameter in parameters:
        gradient = parameter.grad
        if isinstance(gradient, DTensor) and isinstance(parameter, DTensor):
            if gradient.placements != parameter.placements:  # sums that are still to be taken cannot be bounded
                parameter.grad = gradient = gradient.redistribute(placements=parameter.placements)
            gradient = gradient.to_local()
        if gradient is not None:
            gradient.clamp_(-limit, limit)
