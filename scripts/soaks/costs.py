"""What the guards and the saving cost."""

import os
import statistics
import time
from pathlib import Path
from typing import Any

from soaks.table import Rows, command


@command
def cost(folder: Path, scale: float) -> Rows:
    """What the guards cost a step at d 384, and what saving costs over a bare write with fsync."""
    import torch

    from lit_transformer.checkpoints import write

    content = {"state_dict": {f"network.{i}": torch.randn(1_000_000) for i in range(64)}, "global_step": 1}
    ours, bare = [], []
    raw = [value.numpy() for value in content["state_dict"].values()]  # type: ignore[attr-defined]
    for _ in range(max(3, int(9 * scale))):
        begun = time.perf_counter()
        write(folder / "ours.ckpt", content, 1)
        ours.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        with open(folder / "bare.new", "wb") as file:
            for array in raw:
                file.write(memoryview(array).cast("B"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(folder / "bare.new", folder / "bare")
        bare.append(time.perf_counter() - begun)
    rows: Rows = [
        ("saving 256 MB, median s", round(statistics.median(ours), 3), ""),
        ("bare write with fsync, median s", round(statistics.median(bare), 3), ""),
        ("ratio of medians", round(statistics.median(ours) / statistics.median(bare), 2), "<= 1.5"),
        ("ratio of the fastest", round(min(ours) / min(bare), 2), ""),
    ]
    return rows + _step_cost(scale)


def _step_cost(scale: float) -> Rows:
    """Time of the hooks themselves beside the time of the step that they guard: no noise of two runs compared."""
    import torch
    from lightning.pytorch import LightningModule, Trainer
    from torch import nn

    from lit_transformer.blocks.loss import CrossEntropy
    from lit_transformer.dims import Dims
    from lit_transformer.networks import DecoderOnly
    from lit_transformer.training.memory_report import MemoryReport
    from lit_transformer.training.nonfinite import NonFinite
    from lit_transformer.training.run_state import RunState
    from lit_transformer.training.signals import Signals
    from lit_transformer.vocabulary import Vocabulary
    from tests.training.tiny_run import Batch

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    network = DecoderOnly(Vocabulary(size=256, max_len=256), Dims(384, 6, 6))
    loss_of = CrossEntropy()

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network: nn.Module = network

        def training_step(self, batch: Batch, index: int) -> Any:
            tokens = batch.x
            output = self.network(tokens)
            return loss_of(output.hidden, output.head, tokens) / tokens.numel()

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3, fused=True)

    spent = [0.0]

    def timed(callback: Any) -> Any:
        for hook in ("on_train_batch_start", "on_before_backward", "on_before_optimizer_step", "on_train_batch_end"):
            original = getattr(callback, hook)

            def call(*args: Any, original: Any = original, **options: Any) -> None:
                begun = time.perf_counter()
                original(*args, **options)
                spent[0] += time.perf_counter() - begun

            setattr(callback, hook, call)
        return callback

    batch, steps = 4, max(6, int(20 * scale))
    data = [Batch(torch.randint(256, (batch, 256)), torch.arange(batch), torch.tensor(batch * 256)) for _ in range(4)]
    times: list[tuple[float, float]] = []

    class Clock(RunState):
        def on_train_batch_start(self, *args: Any) -> None:
            self.begun = time.perf_counter()
            spent[0] = 0.0
            super().on_train_batch_start(*args)
            spent[0] += time.perf_counter() - self.begun

    state = Clock()
    guards = [timed(callback) for callback in (NonFinite(), MemoryReport(), Signals())]
    original_end = state.on_train_batch_end

    def end(*args: Any, **options: Any) -> None:
        begun = time.perf_counter()
        original_end(*args, **options)
        now = time.perf_counter()
        times.append((spent[0] + now - begun, now - state.begun))

    state.on_train_batch_end = end  # type: ignore[method-assign]
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, callbacks=[state, *guards], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), torch.utils.data.DataLoader(data, batch_size=None))  # type: ignore[arg-type]
    shares = [100 * guard / whole for guard, whole in times[2:]]
    return [
        ("step at d 384, 6 layers, 4 x 256 tokens, median s", round(statistics.median(t for _, t in times[2:]), 3), ""),
        ("guards, median ms", round(1000 * statistics.median(g for g, _ in times[2:]), 2), ""),
        ("guards' share of the step, %", round(statistics.median(shares), 2), "<= 1"),
    ]
