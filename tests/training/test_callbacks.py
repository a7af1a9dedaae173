"""What a run leaves for its user to see: scalars, samples as text, histograms; nothing rendered that a model wrote."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_transformer.data.files import FilesCorpus
from lit_transformer.data.language_modeling import LanguageModelingData
from lit_transformer.data.tokenizers import Bytes
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.tasks import LanguageModeling
from lit_transformer.training.callbacks import (
    GradientNorm,
    Histograms,
    LayerGradientNorms,
    Progress,
    Samples,
    Throughput,
    throughput,
)
from lit_transformer.training.callbacks.throughput import peak_flops
from lit_transformer.training.trainer import Trainer


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "train.txt").write_text("<img src=x> the quick brown fox\n" * 60)
    data = LanguageModelingData(
        FilesCorpus("train.txt", data_dir=str(tmp_path)), Bytes(), 32, 4, cache_dir=str(tmp_path / "cache")
    )
    monkeypatch.setattr(throughput, "peak_flops", lambda device, precision: 1e12)
    monkeypatch.setattr("lit_transformer.training.callbacks.samples.sample_text", lambda *_: "<img src=x>\n# head")
    task = LanguageModeling(partial(DecoderOnly, dims=Dims(16, 1, 2)), data.vocabulary, max_steps=6)
    samples = Samples(["a "])
    trainer = Trainer(
        max_steps=6,
        validate_every=3,
        accumulate_grad_batches=2,
        log_every_n_steps=2,
        callbacks=[GradientNorm(), LayerGradientNorms(), Throughput(), Histograms(3), samples, Progress()],
        logger=TensorBoardLogger(str(tmp_path), name="", version="", default_hp_metric=False),
        accelerator="cpu",
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(task, datamodule=data)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0}).Reload()
    return events, samples, trainer


def test_scalars(run: Any) -> None:
    events, _, _ = run
    tags = set(events.Tags()["scalars"])
    wanted = {"train/loss", "train/learning_rate", "train/gradient_norm", "train/tokens_per_second", "train/mfu"}
    assert wanted | {"val/loss", "val/perplexity", "val/bits_per_byte"} <= tags
    assert [event.step for event in events.Scalars("val/loss")] == [2, 5]  # Lightning counts steps from 0
    assert all(event.value > 0 for tag in wanted for event in events.Scalars(tag))


def test_layers_are_parts_of_the_whole_gradient(run: Any) -> None:
    events, _, trainer = run
    whole = [event.value for event in events.Scalars("train/gradient_norm")]
    [layers] = [[[event.value for event in events.Scalars(f"train/gradient_norm_by_layer/{i}")] for i in range(1)]]
    assert trainer.lightning_module.network.dims.n_layers == len(layers)
    assert all(0 < sum(norms) < total for total, *norms in zip(whole, *layers, strict=True))
    assert [event.value for event in events.Scalars("train/gradient_spread")] == [1.0] * len(whole)


def test_mfu_is_the_needed_flops_over_the_peak(run: Any) -> None:
    events, _, trainer = run
    network = trainer.lightning_module.network
    for rate, mfu in zip(events.Scalars("train/tokens_per_second"), events.Scalars("train/mfu"), strict=True):
        assert mfu.value == pytest.approx(rate.value * network.flops_per_token(32) / 1e12, rel=1e-4)


def test_a_cpu_has_no_known_peak() -> None:
    assert peak_flops(torch.device("cpu"), "32-true") is None


def test_samples_are_text_and_never_markup(run: Any) -> None:
    events, samples, _ = run
    assert samples.latest == ["<img src=x>\n# head"]
    written = events.Tensors("samples/text_summary")
    assert [event.step for event in written] == [3, 6]
    text = written[0].tensor_proto.string_val[0].decode()
    assert "<img" not in text
    assert all(line.startswith("    ") for line in text.splitlines() if line)


def test_histograms_of_every_layer(run: Any) -> None:
    events, _, trainer = run
    tags = set(events.Tags()["histograms"])
    for name, _ in trainer.lightning_module.named_parameters():
        assert {f"weights/{name}", f"gradients/{name}"} <= tags


def test_plain_lines_where_there_is_no_terminal(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    events, _, trainer = run
    bar = next(callback for callback in trainer.callbacks if isinstance(callback, Progress))
    assert bar._bar is None
    bar.enable()
    bar.print("[red]kept as it is[/red]")
    assert "[red]kept as it is[/red]" in capsys.readouterr().out
