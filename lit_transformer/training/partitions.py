"""This rank's part of weights, gradients and moments under DeepSpeed's ZeRO, and the whole tensors they belong to."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from lit_transformer.networks.parts import assembled, local, shape_of, whole_of


class Partitions:
    """What DeepSpeed's optimizers hold in flat pieces, by parameter.

    Methods that speak of whole tensors are called by all ranks, in the same order.

    Args:
        module: The whole module.
        optimizer: DeepSpeed's, around the recipe's.
        groups: The parameters of each group of the recipe's optimizer.
    """

    def __init__(self, module: nn.Module, optimizer: Any, groups: Sequence[Sequence[Parameter]]) -> None:
        self.module = module
        self.optimizer = optimizer
        self.groups = [list(group) for group in groups]
        self.frozen: dict[str, Tensor] = {}
        """By name float32 weights, or this rank's parts, of what is not trained, where the network's are rounded."""

    @property
    def base(self) -> torch.optim.Optimizer:
        """The recipe's optimizer."""
        found: torch.optim.Optimizer = self.optimizer.optimizer
        return found

    def whole(self, parameter: Parameter) -> Tensor:
        """The float32 weights that the optimizer keeps, or the parameter where it has none."""
        from deepspeed.utils import safe_get_full_fp32_param

        found: Tensor | None = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
        if found is not None:
            return found.reshape(shape_of(parameter))
        return whole_of(parameter)

    def whole_weights(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A state dict with whole tensors in the place of what DeepSpeed left of them; tied ones are one tensor."""
        parameters = dict(self.module.named_parameters(remove_duplicate=False))
        done: dict[int, Tensor] = {}
        for name, part in self.frozen.items():
            owner = parameters[name]
            done[id(owner)] = part if part.shape == shape_of(owner) else assembled(owner, part)
        result = {}
        for name, value in state.items():
            parameter = parameters.get(name)
            if parameter is None:
                result[name] = value
                continue
            if id(parameter) not in done:
                done[id(parameter)] = self.whole(parameter)
            result[name] = done[id(parameter)]
        return result

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Sets the float32 weights that the optimizer keeps; the network's own are theirs, rounded, already.

        Args:
            weights: By parameter name, whole ones, or this rank's parts.
        """
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

        for name, parameter in self.module.named_parameters():
            if not parameter.requires_grad:
                continue
            if weights[name].shape == shape_of(parameter):
                safe_set_full_fp32_param(parameter, weights[name].to(self.device))
            else:
                safe_set_local_fp32_param(parameter, weights[name].to(local(parameter).device))

    @property
    def device(self) -> torch.device:
        """Where ranks exchange tensors; the parts may lie on the host."""
        return next(self.module.parameters()).device

    @property
    def flats(self) -> list[Tensor]:
        """The flat float32 pieces that the recipe's optimizer steps."""
        if hasattr(self.optimizer, "fp32_partitioned_groups_flat"):
            return list(self.optimizer.fp32_partitioned_groups_flat)
        if hasattr(self.optimizer, "single_partition_of_fp32_groups"):
            return list(self.optimizer.single_partition_of_fp32_groups)
        return list(self.optimizer.fp32_groups_flat_partition)

    def gradients(self) -> list[Tensor]:
        """This rank's parts of the gradient of a window, before they are clipped."""
        parts = [part for flat in self.optimizer.averaged_gradients.values() for part in flat or ()]
        return [*parts, *(flat.grad for flat in self.flats if flat.grad is not None)]

    def whole_gradient(self, parameter: Parameter) -> Tensor | None:
        """A parameter's gradient of a window, before it is clipped."""
        if not parameter.requires_grad:
            return None
        if hasattr(parameter, "ds_id"):
            gradient: Tensor = parameter._z3_optimizer.get_fp32_grad_for_param(parameter)  # type: ignore[attr-defined]
        else:
            gradient = parameter.get_full_hp_grad()  # type: ignore[attr-defined]
        return gradient.reshape(shape_of(parameter))

    def optimizer_state(self, keep: bool) -> dict[str, Any]:
        """The state dict of the recipe's optimizer as if there were one device.

        Args:
            keep: Whether this rank wants it.
        """
        state: dict[int, dict[str, Any]] = {}
        numbered = [p for group in self.groups for p in group]
        for number, parameter in enumerate(numbered):
            flat = self.flats[self._place(parameter)]
            mine = {}
            for key, value in self.base.state.get(flat, {}).items():
                if isinstance(value, Tensor) and value.shape == flat.shape:
                    whole = self._assembled(parameter, value)
                    mine[key] = whole.cpu() if keep else None
                else:
                    mine[key] = value.clone() if isinstance(value, Tensor) else value
            if mine:
                state[number] = mine
        first, described = 0, []
        for group, parameters in zip(self.base.param_groups, self.groups, strict=True):
            numbers = list(range(first, first + len(parameters)))
            described.append({**{key: value for key, value in group.items() if key != "params"}, "params": numbers})
            first += len(parameters)
        return {"state": state, "param_groups": described}

    def load_optimizer_state(self, stored: Mapping[str, Any]) -> None:
        """Keeps this rank's part of what ``optimizer_state`` returns."""
        numbered = [p for group in self.groups for p in group]
        for number, values in stored["state"].items():
            parameter = numbered[number]
            flat = self.flats[self._place(parameter)]
            mine = self.base.state[flat]
            for key, value in values.items():
                if isinstance(value, Tensor) and value.shape == shape_of(parameter):
                    if key not in mine:
                        mine[key] = torch.zeros_like(flat, dtype=value.dtype)
                    self._keep(parameter, mine[key], value)
                else:
                    mine[key] = value.clone() if isinstance(value, Tensor) else value
        for group, settings in zip(self.base.param_groups, stored["param_groups"], strict=True):
            group.update({key: value for key, value in settings.items() if key != "params"})

    def _assembled(self, parameter: Parameter, flat: Tensor) -> Tensor:
        """The whole tensor of what the ranks' flat pieces hold for a parameter."""
        whole = torch.zeros(shape_of(parameter).numel(), dtype=flat.dtype, device=self.device)
        if (places := self._places(parameter)) is not None:
            (here, there), size = places
            whole.narrow(0, there, size).copy_(flat.narrow(0, here, size))
        torch.distributed.all_reduce(whole)
        return whole.reshape(shape_of(parameter))

    def _keep(self, parameter: Parameter, flat: Tensor, whole: Tensor) -> None:
        """Writes this rank's part of a whole tensor into its place in the flat piece."""
        if (places := self._places(parameter)) is not None:
            (here, there), size = places
            flat.narrow(0, here, size).copy_(whole.flatten().narrow(0, there, size))

    def _places(self, parameter: Parameter) -> tuple[tuple[int, int], int] | None:
        """Where this rank's part begins in its flat piece and in the whole parameter, and its size, if it has one."""
        if hasattr(parameter, "ds_id"):
            _, here, size = self.optimizer.grad_position[self.optimizer.get_param_id(parameter)]
            there = size * torch.distributed.get_rank(parameter.ds_process_group)  # type: ignore[attr-defined]
            size = min(size, shape_of(parameter).numel() - there)  # the last part is filled up
            return ((here, there), size) if size > 0 else None
        mapping = parameter._hp_mapping  # type: ignore[attr-defined]
        if mapping is None:
            return None
        address = mapping.hp_fragment_address
        return (address.start, mapping.lp_fragment_address.start), address.numel

    def _place(self, parameter: Parameter) -> int:
        """Number of the flat piece that a parameter is in."""
        if hasattr(parameter, "ds_id"):
            return int(self.optimizer.grad_position[self.optimizer.get_param_id(parameter)][0])
        return next(i for i, group in enumerate(self.groups) if any(p is parameter for p in group))
