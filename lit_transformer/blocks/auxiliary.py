"""What travels up beside the stream: auxiliary losses and statistics, in return values alone."""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor


class Auxiliary(NamedTuple):
    """What a sublayer, a layer or a stack reports beside its output.

    A tuple of dictionaries, so that sharding and compilation see the tensors in it.

    Args:
        losses: Weighted already; the task adds them to its loss.
        stats: Detached; to be logged (a vector has one entry per expert).
    """

    losses: dict[str, Tensor]
    stats: dict[str, Tensor]

    @classmethod
    def none(cls) -> "Auxiliary":
        """Nothing to report."""
        return cls({}, {})

    @classmethod
    def of_layers(cls, reports: Iterable["Auxiliary"], name: str = "layer") -> "Auxiliary":
        """Losses of the same name are added up; statistics stay apart, as ``layer0/expert_load``."""
        losses: dict[str, Tensor] = {}
        stats: dict[str, Tensor] = {}
        for i, report in enumerate(reports):
            for key, loss in report.losses.items():
                losses[key] = losses[key] + loss if key in losses else loss
            stats |= {f"{name}{i}/{key}": value for key, value in report.stats.items()}
        return cls(losses, stats)

    @classmethod
    def of_stacks(cls, **reports: "Auxiliary") -> "Auxiliary":
        """The same for named stacks: ``Auxiliary.of_stacks(encoder=a, decoder=b)``."""
        losses = cls.of_layers(reports.values()).losses
        return cls(losses, {f"{name}/{k}": v for name, report in reports.items() for k, v in report.stats.items()})
