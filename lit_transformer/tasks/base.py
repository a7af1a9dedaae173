"""What all tasks share: a task is handed its network, and owns its loss, its metrics and its prediction."""

import inspect
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.optim import AdamW

from lit_transformer.blocks.loss import ChunkedCrossEntropy, TokenLoss
from lit_transformer.checkpoints.adapters import is_adapter, without_adapters
from lit_transformer.checkpoints.loading import check_fit
from lit_transformer.networks.base import Network, Output
from lit_transformer.networks.parts import named_state
from lit_transformer.training.callbacks.experts import ExpertBalance
from lit_transformer.training.callbacks.statistics import SharedStatistics
from lit_transformer.training.optimizers import OptimizerFactory, parameter_groups
from lit_transformer.training.schedule_free import ScheduleFree
from lit_transformer.training.schedules import Constant, ScheduledRate, ScheduleFactory
from lit_transformer.training.strategy import clip_by_norm, clip_by_value, settle
from lit_transformer.vocabulary import Vocabulary

NetworkFactory = Callable[[Vocabulary], Network]


class Task(LightningModule):
    """Base of the tasks.

    Args:
        network: Makes the network once the data has said its vocabulary.
        vocabulary: What the data says; the CLI links it.
        max_steps: Optimizer steps of the run; the CLI links ``trainer.max_steps``.
        optimizer: Makes the optimizer of groups of parameters.
        schedule: Makes the learning-rate schedule of the number of steps.
        loss: From hidden states and targets to the sum of losses.
    """

    network: Network
    writes_text = True
    """Whether the network, if it decodes, is trained to write text, of which samples can be shown."""

    def __init__(
        self,
        network: NetworkFactory,
        vocabulary: Vocabulary,
        max_steps: int,
        optimizer: OptimizerFactory = AdamW,
        schedule: ScheduleFactory = Constant,
        loss: TokenLoss | None = None,
    ) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.max_steps = max_steps
        self.loss: nn.Module = loss or ChunkedCrossEntropy()
        self.recipe: dict[str, Any] | None = None
        """The ``model`` section of the recipe as plain data, for the checkpoint; set by the CLI."""
        self.on_built: list[Callable[[Network], None]] = []
        """Called with the network once it is built, before a strategy wraps it."""
        self._network_factory = network
        self._optimizer_factory = optimizer
        self._schedule_factory = schedule
        self._hyperparameters: list[dict[str, Any]] = []
        self._window_loss: Tensor | float = 0.0
        self._rate: ScheduledRate | None = None

    def configure_model(self) -> None:
        """Builds the network, once; a strategy that shards it builds it without memory, then part by part."""
        if hasattr(self, "network"):
            return
        make = partial(self._network_factory, self.vocabulary)
        build = None if self._trainer is None else getattr(self.trainer.strategy, "build", None)
        self.network = make() if build is None else build(self, make)
        for each in self.on_built:
            each(self.network)

    def resized(self, d_model: int) -> Network:
        """A network like the one of this task in another width, with fresh weights.

        Heads keep their size, so that there are more of them in a wider one; hidden units grow in proportion.

        Args:
            d_model: The width.
        """
        dims = self.network.dims
        part = d_model / dims.d_model
        sizes = {name: getattr(dims, name) for name in ("n_heads", "n_kv_heads", "d_ff")}
        scaled = {name: value and max(1, round(value * part)) for name, value in sizes.items()}
        make = cast(Callable[..., Network], self._network_factory)
        return make(self.vocabulary, dims=replace(dims, d_model=d_model, head_dim=dims.head_size, **scaled))

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Lightning's, but for sharded networks, whose gradients lie on several devices and meshes."""
        if self.device_mesh is None or not gradient_clip_val:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            clip = clip_by_value if gradient_clip_algorithm == "value" else clip_by_norm
            clip(self.parameters(), float(gradient_clip_val))

    def configure_optimizers(self) -> Any:
        """The recipe's optimizer over grouped parameters, its rate set before every optimizer step."""
        optimizer = self._optimizer_factory(parameter_groups(self))
        if self._trainer is not None and self.trainer.gradient_clip_val:
            # A fused optimizer offers to undo float16's loss scaling inside its step: too late for clipping.
            setattr(optimizer, "_step_supports_amp_scaling", False)  # noqa: B010 not an attribute of all optimizers
        settings = inspect.signature(type(optimizer)).parameters  # what else a group holds is the optimizer's own state
        self._hyperparameters = [{k: v for k, v in g.items() if k in settings} for g in optimizer.param_groups]
        self._rate = rate = ScheduledRate(optimizer, self._schedule_factory(self.max_steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": rate, "interval": "step", "name": "train/learning_rate"},
        }

    @property
    def lr(self) -> float | None:
        """The peak learning rate, which Lightning's ``LearningRateFinder`` sets; groups keep their proportions."""
        return None if self._rate is None else float(self._rate.base_lrs[0])

    @lr.setter
    def lr(self, value: float) -> None:
        if self._rate is not None:
            scale = value / self._rate.base_lrs[0]
            self._rate.base_lrs = [base * scale for base in self._rate.base_lrs]

    def on_train_start(self) -> None:
        """After a resume the recipe's betas, decay and so on hold, not the stored ones; the schedule set the rate."""
        optimizer = self.trainer.optimizers[0]
        for group, recipe in zip(optimizer.param_groups, self._hyperparameters, strict=True):
            group.update({key: value for key, value in recipe.items() if key not in ("params", "lr")})
        settle(optimizer)
        if self._rate is not None:
            self._rate.load_state_dict(self._rate.state_dict())  # whoever touched the rates meanwhile

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses weights of another network, in one line; folds in adapters, where this run has none."""
        if not any(map(is_adapter, self.state_dict())):
            checkpoint["state_dict"] = without_adapters(checkpoint["state_dict"])
        check_fit(dict(named_state(self)), checkpoint["state_dict"], "the checkpoint")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what it takes to use the file alone: the recipe's model, the vocabulary and the tokenizer."""
        checkpoint["hyper_parameters"] = self.recipe or {}
        checkpoint["vocabulary"] = asdict(self.vocabulary)
        tokenizer = getattr(getattr(self.trainer, "datamodule", None), "tokenizer", None)
        if tokenizer is not None:
            checkpoint["tokenizer"] = tokenizer.to_json()

    def configure_callbacks(self) -> list[Callback]:
        """What the network may need from the training loop, wherever the callbacks of the trainer come from."""
        return [ExpertBalance(), ScheduleFree(), SharedStatistics()]

    def log_stats(self, stats: dict[str, Tensor]) -> None:
        """What the network reports beside its losses (an expert's load): a vector is logged entry by entry."""
        if not stats or not self.log_due():
            return
        values: dict[str, Tensor] = {}
        for name, value in stats.items():
            if value.ndim:
                values |= {f"train/{name}/{i}": entry for i, entry in enumerate(value)}
            else:
                values[f"train/{name}"] = value
        self.log_dict(values, sync_dist=True)

    def micro_batch_loss(self, total: Tensor, count: Tensor, window_tokens: Tensor, output: Output) -> Tensor:
        """What ``training_step`` returns for a sum of losses over ``count`` targets; notes it for ``train/loss``.

        Args:
            total: Sum of the losses of this micro-batch.
            count: Its number of targets, which the network's own losses (balance of experts) are weighted by.
            window_tokens: Number of targets in the whole accumulation window on all ranks.
            output: What the network returned, for its own losses and statistics.
        """
        self.log_stats(output.stats)
        self._window_loss = self._window_loss + total.detach() / window_tokens
        for value in output.losses.values():
            total = total + value * count
        return self.share_of_window(total, window_tokens)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """The window's last micro-batch is in: log the window's mean loss."""
        if self.log_due():
            ranks = self.trainer.distributed_sampler_kwargs or {}
            alike = self.trainer.world_size // ranks.get("num_replicas", 1)  # ranks that share a row count it once each
            self.log("train/loss", self._window_loss / alike, sync_dist=True, reduce_fx="sum")
            self.log("train/learning_rate", optimizer.param_groups[0]["lr"])
        self._window_loss = 0.0

    def evaluate(self, batch: Any, split: str) -> None:
        """Adds what a batch of "validation" or "test" says to the sums of its split."""
        raise NotImplementedError

    def loss_sums(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Sum of a batch's losses as ``evaluate`` counts them, and the number of its targets; leaves no trace."""
        raise NotImplementedError

    def results(self, split: str) -> dict[str, float]:
        """What the sums over the split say, by name without the split; starts anew."""
        raise NotImplementedError

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Adds the batch's sums."""
        self.evaluate(batch, "validation")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Adds the batch's sums."""
        self.evaluate(batch, "test")

    def on_validation_epoch_end(self) -> None:
        """Logs what the sums say."""
        self._report("val", "validation")

    def on_test_epoch_end(self) -> None:
        """Logs what the sums say."""
        self._report("test", "test")

    def _report(self, name: str, split: str) -> None:
        values = {f"{name}/{key}": value for key, value in self.results(split).items()}
        self.log_dict(values, rank_zero_only=False, sync_dist=False)

    def share_of_window(self, total: Tensor, window_tokens: Tensor) -> Tensor:
        """This micro-batch's part of the mean over all target tokens of the accumulation window on all ranks.

        Lightning divides by the number of micro-batches and DDP averages over ranks; both are undone here, so that the
        gradient is the one of the single mean, however the window is cut.
        """
        ranks = self.trainer.distributed_sampler_kwargs or {}  # those that see different data, not those of a shard
        parts: int = self.trainer.accumulate_grad_batches * ranks.get("num_replicas", 1)
        return total / window_tokens * parts

    def log_due(self) -> bool:
        """Whether the optimizer step under way is one that is logged."""
        every = max(1, int(getattr(self.trainer, "log_every_n_steps", 50)))
        return (self.trainer.global_step + 1) % every == 0 or self.trainer.global_step == 0
