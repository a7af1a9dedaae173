"""Classification: one label for a text or several."""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import AdamW
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)

from lit_transformer.analysis.confusion import confusion_picture
from lit_transformer.blocks.pooling import LabelHead, Mean, Pooling
from lit_transformer.data.batch import IGNORED, LabelBatch
from lit_transformer.data.classification import Classes, ClassificationData
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.networks import DepthScaled, Output, initialise
from lit_transformer.networks.base import Network
from lit_transformer.recipe.building import described
from lit_transformer.tasks.base import NetworkFactory, Task
from lit_transformer.tasks.class_weights import ClassWeights
from lit_transformer.training.optimizers import OptimizerFactory
from lit_transformer.training.schedules import Constant, ScheduleFactory
from lit_transformer.training.sharding import spread_part
from lit_transformer.vocabulary import Vocabulary


class Classification(Task):
    """Labels for rows, from the pooled states of any network.

    Logs ``train/loss`` (what is trained on) and, over the whole split, ``val/loss`` (nats per row, without weights and
    smoothing), ``val/accuracy``, ``val/macro_f1`` and ``val/matthews``, with a picture of the confusion matrix.

    Args:
        network: Makes the network once the data has said its vocabulary.
        vocabulary: What the data says; the CLI links it.
        classes: What the data says of the labels; the CLI links it.
        max_steps: Optimizer steps of the run; the CLI links ``trainer.max_steps``.
        optimizer: Makes the optimizer of groups of parameters.
        schedule: Makes the learning-rate schedule of the number of steps.
        pooling: Makes one vector of the states of a row: FirstToken, Mean, ... of an encoder, LastToken of a decoder.
        dropout: Share of the pooled vector that is dropped in training.
        class_weights: How much a row counts by its class; left out: all the same.
        label_smoothing: Share of the label's probability that is spread over all classes.
    """

    writes_text = False
    class_weights: Tensor

    def __init__(
        self,
        network: NetworkFactory,
        vocabulary: Vocabulary,
        classes: Classes,
        max_steps: int,
        optimizer: OptimizerFactory = AdamW,
        schedule: ScheduleFactory = Constant,
        pooling: Callable[[Dims], Pooling] = Mean,
        dropout: float = 0.1,
        class_weights: ClassWeights | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(network, vocabulary, max_steps, optimizer, schedule)
        self.classes = classes
        self.label_smoothing = label_smoothing
        self._pooling, self._dropout = pooling, dropout
        weights = [1.0] * len(classes.names) if class_weights is None else class_weights.weights(classes)
        self.register_buffer("class_weights", torch.tensor(weights), persistent=False)
        kinds: dict[str, Any] = {"num_classes": len(classes.names), "ignore_index": IGNORED, "validate_args": False}
        self.evaluated = MeanMetric().set_dtype(torch.float64)
        self.scores = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(average="micro", **kinds),
                "macro_f1": MulticlassF1Score(average="macro", **kinds),
                "matthews": MulticlassMatthewsCorrCoef(**kinds),
            }
        )
        self.confusion = MulticlassConfusionMatrix(**kinds)

    def configure_model(self) -> None:
        """Builds network and label head, once."""
        super().configure_model()
        if not hasattr(self, "label_head"):
            _leave_out_tokens_head(self.network)
            self.label_head = LabelHead(self.network.dims, len(self.classes.names), self._pooling, self._dropout)
            if not self.label_head.weight.is_meta:
                initialise(self.label_head, DepthScaled(), torch.initial_seed(), self.network.dims.n_layers)
            if self.device_mesh is not None:
                spread_part(self.label_head, self.device_mesh)

    def forward(self, batch: LabelBatch) -> tuple[Float[Tensor, "B C"], Output]:
        """Scores of the classes, and what the network returned."""
        output: Output = self.network(**batch.inputs)
        return self.label_head(output.hidden, batch.documents), output

    def training_step(self, batch: LabelBatch, batch_idx: int) -> Tensor:
        """The micro-batch's part of the mean over its accumulation window."""
        scores, output = self(batch)
        weights = self.class_weights.to(torch.promote_types(scores.dtype, torch.float32))
        total = F.cross_entropy(
            scores.to(weights.dtype),
            batch.labels,
            weight=weights,
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        return self.micro_batch_loss(total, batch.target_count, batch.window_tokens, output)

    def evaluate(self, batch: LabelBatch, split: str) -> None:
        """See the base class."""
        scores, _ = self(batch)
        count = batch.target_count
        if count:
            nll = F.cross_entropy(scores.double(), batch.labels, ignore_index=IGNORED)
            self.evaluated.update(nll, count)
            self.scores.update(scores, batch.labels)
            self.confusion.update(scores, batch.labels)

    def loss_sums(self, batch: LabelBatch) -> tuple[Tensor, Tensor]:
        """See the base class."""
        scores, _ = self(batch)
        total = F.cross_entropy(scores.double(), batch.labels, ignore_index=IGNORED, reduction="sum")
        return total, batch.target_count

    def results(self, split: str) -> dict[str, float]:
        """See the base class.

        Raises:
            UserError: No row of the split has a label.
        """
        counts = self.confusion.compute()
        if not counts.sum():
            raise UserError(f"data.corpus: no row of the {split} split has a label; predict does without")
        values = {"loss": float(self.evaluated.compute())}
        values |= {name: float(value) for name, value in self.scores.compute().items()}
        for logger in self.loggers:
            add = getattr(getattr(logger, "experiment", None), "add_image", None)
            if add is not None and self.trainer.is_global_zero:
                add(f"{split}/confusion", confusion_picture(counts, self.classes.names), self.global_step)
        for metric in (self.evaluated, self.scores, self.confusion):
            metric.reset()
        return values

    def predict_step(self, batch: LabelBatch, batch_idx: int) -> list[dict[str, Any]]:
        """The most likely class of every row and the probabilities of all, with the row's number."""
        probabilities = self(batch)[0].double().softmax(-1)
        return [
            {
                "id": int(number),
                "label": self.classes.names[int(row.argmax())],
                "probabilities": dict(zip(self.classes.names, row.tolist(), strict=True)),
            }
            for number, row in zip(batch.ids, probabilities, strict=True)
            if number >= 0
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the names of the classes, and how the data makes a sequence of texts."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["classes"] = list(self.classes.names)
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, ClassificationData):
            checkpoint["layout"] = described(data.layout)
            checkpoint["text_fields"] = list(data.text)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses weights of another network or for other classes, in one line."""
        stored = checkpoint.get("classes")
        if stored is not None and list(stored) != list(self.classes.names):
            unlike = sorted(set(stored) ^ set(self.classes.names)) or stored
            raise UserError(
                f"the checkpoint: its {len(stored)} classes are not the {len(self.classes.names)} of the data "
                f"({unlike[0]!r} is not in both); use the data that it was trained on"
            )
        super().on_load_checkpoint(checkpoint)


def _leave_out_tokens_head(network: Network) -> None:
    """What the head of the tokens has of its own is not trained here: DDP waits for gradients of all that is."""
    others = {id(p) for name, part in network.named_children() if name != "head" for p in part.parameters()}
    for parameter in cast(nn.Module, network.head).parameters():
        if id(parameter) not in others:
            parameter.requires_grad_(False)
