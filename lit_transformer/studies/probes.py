"""What a step of a study can measure beside a split's metrics; the measuring itself is in ``analysis``."""

import itertools
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lit_transformer.studies.parts import Probe


def _batches(task: Any, data: Any, count: int) -> list[Any]:
    device = next(task.network.parameters()).device
    return [batch.to(device) for batch in itertools.islice(data.val_dataloader(), count)]


@dataclass
class PositionLossProbe(Probe):
    """Loss by position in the context: ``loss_at/POSITION``.

    Args:
        batches: Batches of the validation split.
        per_octave: Points for each doubling of the position.
    """

    names: ClassVar[tuple[str, ...]] = ("loss_at",)
    batches: int = 16
    per_octave: int = 2

    def __call__(self, task: Any, data: Any) -> dict[str, float]:
        """See the base class."""
        from lit_transformer.analysis.probing import loss_by_position

        task.eval()
        found = loss_by_position(task.network, _batches(task, data, self.batches), self.per_octave)
        return {f"loss_at/{place:g}": value for place, value in found.items()}


@dataclass
class ShiftProbe(Probe):
    """How much logits change when all positions are moved: ``shift``, the largest difference, in float64.

    Args:
        length: Tokens of the text.
        shift: How far positions are moved.
    """

    names: ClassVar[tuple[str, ...]] = ("shift",)
    length: int = 32
    shift: int = 32

    def __call__(self, task: Any, data: Any) -> dict[str, float]:
        """See the base class."""
        from lit_transformer.analysis.probing import shift_difference

        task.eval()
        [batch] = _batches(task, data, 1)
        return {"shift": shift_difference(task.network.double(), batch.tokens[:1, : self.length], self.shift)}


@dataclass
class ModeProbe(Probe):
    """What training mode changes on the same text (BatchNorm's statistics): ``loss_training`` and ``loss_evaluation``.

    Args:
        batches: Batches of the validation split.
    """

    names: ClassVar[tuple[str, ...]] = ("loss_evaluation", "loss_training", "gap")
    batches: int = 8

    def __call__(self, task: Any, data: Any) -> dict[str, float]:
        """See the base class."""
        import torch

        found = {}
        for mode in ("evaluation", "training"):  # this order: training mode moves running statistics
            task.train(mode == "training")
            with torch.no_grad():
                sums = [task.loss_sums(batch) for batch in _batches(task, data, self.batches)]
            found[f"loss_{mode}"] = float(sum(total for total, _ in sums)) / float(sum(count for _, count in sums))
        return {**found, "gap": found["loss_evaluation"] - found["loss_training"]}


@dataclass
class GradientProbe(Probe):
    """Norm of the gradient by layer: ``gradient_norm/LAYER``, of the mean loss of one batch.

    An encoder-decoder's stacks are told apart: ``gradient_norm_encoder/LAYER``.
    """

    names: ClassVar[tuple[str, ...]] = (
        "gradient_norm",
        "gradient_norm_encoder",
        "gradient_norm_decoder",
        "gradient_spread",
    )

    def __call__(self, task: Any, data: Any) -> dict[str, float]:
        """See the base class."""
        from lit_transformer.analysis.probing import gradient_norms, names_by_layer

        self.prepare(task)
        task.train()
        [batch] = _batches(task, data, 1)
        total, count = task.loss_sums(batch)
        norms = gradient_norms(task.network, total / count)
        found = names_by_layer(norms, "gradient_norm")
        largest, smallest = max(found.values()), min(found.values())
        return {**found, "gradient_spread": largest / smallest if smallest else math.inf}

    def prepare(self, task: Any) -> None:
        """Leaves the network as it was trained."""


@dataclass
class StartGradientProbe(GradientProbe):
    """The same at initialisation: the weights are drawn anew."""

    def prepare(self, task: Any) -> None:
        """Draws the weights as the cell's seed did."""
        import torch

        task.network.initialise(torch.initial_seed())


@dataclass
class DecodingProbe(Probe):
    """Bytes of a row's cache and milliseconds of a step of decoding: ``cache_bytes``, ``milliseconds_per_token``.

    Args:
        length: Tokens in the cache.
        rows: Texts that are decoded at a time; a step gives each a token.
    """

    names: ClassVar[tuple[str, ...]] = ("cache_bytes", "milliseconds_per_token")
    length: int = 256
    rows: int = 1

    def __call__(self, task: Any, data: Any) -> dict[str, float]:
        """See the base class."""
        from lit_transformer.analysis.probing import decoding_cost

        task.eval()
        return decoding_cost(task.network, self.length, self.rows)


@dataclass
class ComplexityProbe(Probe):
    """Milliseconds of attention, of its scores alone and of the feed-forward, of one layer and one text.

    ``attention_ms/LENGTH`` and so on at the width of the network; ``attention_exponent`` is their growth with the
    length. With more widths ``attention_length_exponent`` and ``attention_width_exponent``, fitted to all of them at
    once: scores take length^2 x width operations, the feed-forward length x width^2. ``crossover`` is the length from
    which on scores take longer.

    Args:
        lengths: Lengths of the text, two at least.
        widths: Widths of networks like this one, with more heads of the same size in wider ones.
        fitted_from: Shortest length that exponents are fitted to: below it the cost of a call by itself shows.
    """

    names: ClassVar[tuple[str, ...]] = ("crossover",) + tuple(
        f"{part}_{what}" for part in ("attention", "scores", "feed_forward")
        for what in ("ms", "exponent", "length_exponent", "width_exponent", "ms_by_width")
    )  # fmt: skip
    lengths: list[int] = field(default_factory=lambda: [64, 128, 256, 512, 1024])
    widths: list[int] = field(default_factory=list)
    fitted_from: int = 256

    def __call__(self, task: Any, data: Any) -> dict[str, float]:
        """See the base class."""
        from lit_transformer.analysis.complexity import crossover, exponent, exponents, time_by_length, time_by_size

        task.eval()
        times = time_by_length(task.network, self.lengths)
        found = {f"{name}_ms/{length}": value for name, each in times.items() for length, value in each.items()}
        start = min(self.fitted_from, *sorted(self.lengths)[-2:])  # two points at least
        for name, each in times.items():
            found[f"{name}_exponent"] = exponent({n: ms for n, ms in each.items() if n >= start})
        if self.widths:
            for name, sizes in time_by_size(task.resized, self.widths, self.lengths).items():
                by_length, by_width = exponents({size: ms for size, ms in sizes.items() if size[0] >= start})
                found |= {f"{name}_length_exponent": by_length, f"{name}_width_exponent": by_width}
                found |= {f"{name}_ms_by_width/{width}": sizes[max(self.lengths), width] for width in self.widths}
        meeting = crossover(times.get("scores", times["attention"]), times["feed_forward"])
        return found if meeting is None else {**found, "crossover": meeting}
