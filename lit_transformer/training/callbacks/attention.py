"""How heads come into being: their metrics during training."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_transformer.analysis.head_metrics import STANDARD, HeadMetric, HeadTable, head_metrics
from lit_transformer.analysis.metric_picture import metric_picture
from lit_transformer.analysis.record import record_attention
from lit_transformer.data.batch import Batch
from lit_transformer.generation.runner import evaluating


class AttentionMetrics(Callback):
    """Measures every head on the first rows of the first batch of each validation.

    Logged are, for each metric, the mean over the heads and the most that a head has
    (``attention/induction_mean``, ``attention/induction_max``), and into TensorBoard a figure of all heads
    (``attention/heads``). Works on one process; runs on several go without it.

    Args:
        rows: Rows of the batch that are looked at.
        metrics: Names of the metrics; left out: all that need nothing but the text.
    """

    def __init__(self, rows: int = 8, metrics: Sequence[str] | None = None) -> None:
        known = [metric.name for metric in STANDARD]
        unknown = [name for name in metrics or () if name not in known]
        if unknown or rows < 1:
            raise ValueError(
                f"metrics: {unknown[0]!r} is not among {', '.join(known)}"
                if unknown
                else f"rows: is {rows}, not above 0"
            )
        self.rows = rows
        self.chosen: list[HeadMetric] = [metric for metric in STANDARD if metrics is None or metric.name in metrics]
        self.latest: HeadTable | None = None
        """The table of the last validation."""

    @torch.no_grad()
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Looks at the first batch, on the first rank."""
        wanted = batch_idx == 0 and trainer.is_global_zero and trainer.world_size == 1 and not trainer.sanity_checking
        if not wanted or trainer.state.fn != "fit" or not isinstance(batch, Batch):
            return
        network: Any = pl_module.network
        few = {name: None if value is None else value[: self.rows] for name, value in batch.inputs.items()}
        with evaluating(network), record_attention(network) as record:
            network(**few)
        if record.layers:
            self.latest = head_metrics(record, batch.inputs["tokens"][: self.rows], few.get("source"), self.chosen)
            self._log(trainer, self.latest)

    def _log(self, trainer: Trainer, table: HeadTable) -> None:
        numbers: dict[str, float] = {}
        for name in table.columns:
            values = table[name][~table[name].isnan()]
            if len(values):
                numbers[f"attention/{name}_mean"] = float(values.mean())
                numbers[f"attention/{name}_max"] = float(values.max())
        for logger in trainer.loggers:
            logger.log_metrics({key: value for key, value in numbers.items() if math.isfinite(value)},
                               step=trainer.global_step)  # fmt: skip
            add = getattr(getattr(logger, "experiment", None), "add_image", None)
            if add is not None:
                add("attention/heads", metric_picture(table), trainer.global_step)
