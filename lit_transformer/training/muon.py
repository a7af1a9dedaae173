"""Muon for the matrices, AdamW for the rest, as one optimizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lit_transformer.errors import UserError


class Muon(Optimizer):
    """Orthogonalised momentum (Jordan et al., 2024; scaled as in Liu et al., 2025, arXiv:2502.16982).

    Groups named ``matrices`` get Muon's update: the momentum's singular values are pushed to one by five Newton-Schulz
    steps, and the result is scaled to the root mean square that AdamW's updates have, so that one learning rate and one
    weight decay serve both. All other groups (embeddings, heads, norms, biases) get AdamW's.

    It looks at whole matrices, and so cannot run where a strategy shards them.

    Args:
        params: Groups from ``parameter_groups``; the task fills them in.
        lr: Peak learning rate; the schedule multiplies it.
        momentum: Decay of Muon's momentum (Nesterov).
        betas: AdamW's decays.
        eps: AdamW's addend.
        weight_decay: Shrinks matrices and embeddings by ``lr * weight_decay`` each step.
        embedding_lr: AdamW's rate as a multiple of ``lr``.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        embedding_lr: float = 1.0,
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay), ("embedding_lr", embedding_lr), ("eps", eps)):
            if not value >= 0:
                raise UserError(f"{name}: is {value}, must be at least 0")
        if not all(0 <= value < 1 for value in (momentum, *betas)):
            raise UserError(f"momentum {momentum} and betas {list(betas)} must be at least 0 and below 1")
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        groups: list[dict[str, Any]] = [
            dict(group) if isinstance(group, dict) else {"params": [group]} for group in params
        ]
        for group in groups:
            if group.get("name") != "matrices":
                group.setdefault("lr", lr * embedding_lr)
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters and group.get("name") == "matrices":
                self._muon(parameters, group)
            elif parameters:
                self._adamw(parameters, group)
        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum: Tensor = state["momentum"]
            momentum.lerp_(parameter.grad, 1 - group["momentum"])
            update = orthogonal(parameter.grad.lerp(momentum, group["momentum"]))
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-group["lr"] * 0.2 * max(parameter.shape) ** 0.5)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter] = {
                    "step": torch.zeros((), device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        states = [self.state[parameter] for parameter in parameters]
        torch.optim._functional.adamw(
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values end up between 0.7 and 1.2.

    The quintic iteration and its coefficients are Jordan et al.'s; in bfloat16 where the device computes it fast.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16() if matrix.is_cuda else matrix.float()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.mT if tall else x).to(matrix.dtype)
    return result
