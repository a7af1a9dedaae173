"""The language-modelling task: exact losses, however the window is cut."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader

from lit_transformer.blocks import Layer
from lit_transformer.data.batch import IGNORED
from lit_transformer.data.files import FilesCorpus
from lit_transformer.data.language_modeling import LanguageModelingData
from lit_transformer.data.tokenizers import Character
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly
from lit_transformer.tasks import LanguageModeling
from lit_transformer.training.schedules import Cosine
from lit_transformer.training.trainer import Trainer

WORDS = ["to be", "or not to be, that is the question", "nobler", "the slings and arrows of outrageous fortune", "a"]


@pytest.fixture
def corpus(tmp_path: Path) -> FilesCorpus:
    for split, count in (("train", 40), ("validation", 7)):
        lines = [json.dumps({"text": " ".join(WORDS[: 1 + (i * 7) % 5])}) for i in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    return FilesCorpus({"train": "train.jsonl", "validation": "validation.jsonl"}, data_dir=str(tmp_path))


class Recorder(LanguageModeling):
    """Keeps the gradient of every optimizer step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gradients: list[Tensor] = []
        self.losses: list[float] = []
        self.counts: set[int] = set()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.counts.add(int(batch.target_count))
        return super().training_step(batch, batch_idx)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.gradients.append(torch.cat([p.grad.flatten() for p in self.network.parameters() if p.grad is not None]))
        self.losses.append(float(self._window_loss))
        super().on_before_optimizer_step(optimizer)


class Uneven(LanguageModelingData):
    """Rows whose targets are partly hidden, as those of prompts and responses are: no two have the same number."""

    def train_dataloader(self) -> Any:
        batches = list(super().train_dataloader())
        for batch in batches:
            for row, sample in enumerate(batch.ids.tolist()):
                batch.targets[row, : 7 * (sample % 9)] = IGNORED
        window = self._share().accumulate
        for start in range(0, len(batches), window):
            tokens = sum(int(batch.target_count) for batch in batches[start : start + window])
            for batch in batches[start : start + window]:
                batch.window_tokens = torch.tensor(tokens)
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def train(
    corpus: FilesCorpus, folder: Path, batch_size: int, accumulate: int, steps: int = 3, dropout: float = 0.0
) -> Recorder:
    torch.manual_seed(0)
    data = Uneven(
        corpus, Character(special_tokens=[]), block_size=64, batch_size=batch_size, cache_dir=str(folder / "cache")
    )
    task = Recorder(
        partial(DecoderOnly, dims=Dims(16, 2, 2), layer=partial(Layer, dropout=dropout)),
        data.vocabulary,
        max_steps=steps,
        optimizer=partial(torch.optim.SGD, lr=0.1),
    )
    trainer = Trainer(
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
        precision=64,
    )
    trainer.fit(task, datamodule=data)
    return task


def test_accumulation_changes_nothing(corpus: FilesCorpus, tmp_path: Path) -> None:
    """The same 4 rows as 1 x 4, 2 x 2 and 4 x 1, with uneven numbers of targets: one gradient, one loss."""
    runs = [train(corpus, tmp_path, batch_size, 4 // batch_size) for batch_size in (4, 2, 1)]
    assert len(runs[2].counts) > 1, "the micro-batches are of one size: this proves nothing"
    for other in runs[1:]:
        assert other.losses == pytest.approx(runs[0].losses, rel=1e-9)
        for a, b in zip(runs[0].gradients, other.gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_mean_of_means_would_be_seen(corpus: FilesCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard above fails where micro-batches are averaged, as Lightning alone would."""

    def mean_of_means(self: Recorder, batch: Any, batch_idx: int) -> Tensor:
        output = self(batch)
        return self.loss(output.hidden, output.head, batch.targets) / (batch.targets != IGNORED).sum()

    one = train(corpus, tmp_path, 4, 1)
    monkeypatch.setattr(Recorder, "training_step", mean_of_means)
    wrong = train(corpus, tmp_path, 1, 4)
    assert not torch.allclose(one.gradients[0], wrong.gradients[0], rtol=1e-3)


def test_evaluation_is_one_sum_over_the_split(corpus: FilesCorpus, tmp_path: Path) -> None:
    """val/loss is token-weighted whatever the batch size; bits per byte counts the bytes predicted.

    Without a token that begins documents, the first character of each is given, not predicted.
    """
    task = train(corpus, tmp_path, 4, 1)
    results = []
    for batch_size in (1, 3, 64):
        data = LanguageModelingData(
            corpus,
            Character(special_tokens=[]),
            block_size=64,
            batch_size=batch_size,
            cache_dir=str(tmp_path / "cache"),
        )
        trainer = Trainer(max_steps=1, logger=False, enable_progress_bar=False, accelerator="cpu", precision=64)
        results.append(trainer.validate(task, datamodule=data, verbose=False)[0])
    for other in results[1:]:
        assert other == pytest.approx(results[0], rel=1e-6)
    total, count = 0.0, 0
    task.eval()
    with torch.no_grad():
        for batch in data.val_dataloader():
            logits = task.double()(batch).logits
            total += torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="sum"
            ).item()
            count += int((batch.targets != IGNORED).sum())
    texts = [json.loads(line)["text"] for line in (corpus.data_dir / "validation.jsonl").read_text().splitlines()]
    assert results[0]["val/loss"] == pytest.approx(total / count, rel=1e-5)
    assert results[0]["val/perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert results[0]["val/bits_per_byte"] == pytest.approx(
        total / math.log(2) / sum(len(text.encode()) - 1 for text in texts), rel=1e-5
    )
    words = sum(len(text.split()) for text in texts)
    assert results[0]["val/word_perplexity"] == pytest.approx(math.exp(total / words), rel=1e-4)


def test_predictions_are_rows_of_log_likelihoods(corpus: FilesCorpus, tmp_path: Path) -> None:
    task = train(corpus, tmp_path, 4, 1)
    data = LanguageModelingData(
        corpus, Character(special_tokens=[]), block_size=64, batch_size=3, cache_dir=str(tmp_path / "cache")
    )
    trainer = Trainer(max_steps=1, logger=False, enable_progress_bar=False, accelerator="cpu", precision=64)
    rows = [row for batch in trainer.predict(task, dataloaders=data.val_dataloader()) or [] for row in batch]
    assert sorted(row["id"] for row in rows) == list(range(len(rows)))
    loss = -sum(row["log_likelihood"] for row in rows) / sum(row["tokens"] for row in rows)
    validated = trainer.validate(task, datamodule=data, verbose=False)[0]
    assert loss == pytest.approx(validated["val/loss"], rel=1e-5)


def test_the_loss_falls(corpus: FilesCorpus, tmp_path: Path) -> None:
    task = train(corpus, tmp_path, 8, 1, steps=60, dropout=0.1)
    assert sum(task.losses[-5:]) < 0.9 * sum(task.losses[:5])


def test_the_learning_rate_finder_sets_the_peak(corpus: FilesCorpus, tmp_path: Path) -> None:
    """Lightning's finder works by a recipe line: it scales every group's rate, and the schedule goes on from there."""
    data = LanguageModelingData(corpus, Character(special_tokens=[]), 16, 4, cache_dir=str(tmp_path / "cache"))
    task = LanguageModeling(
        partial(DecoderOnly, dims=Dims(16, 2, 2)),
        data.vocabulary,
        max_steps=3,
        optimizer=partial(torch.optim.AdamW, lr=1e-9),
        schedule=partial(Cosine, warmup=2),
    )
    finder = LearningRateFinder(min_lr=1e-5, max_lr=1.0, num_training_steps=40)
    trainer = Trainer(
        max_steps=3,
        callbacks=[finder],
        logger=False,
        enable_progress_bar=False,
        accelerator="cpu",
        default_root_dir=str(tmp_path),
    )
    trainer.fit(task, datamodule=data)
    assert trainer.global_step == 3
    assert task.lr is not None
    assert 1e-5 < task.lr < 1.0
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(task.lr * Cosine(3, 2)(3))


def test_a_fused_optimizer_can_be_clipped_under_float16(corpus: FilesCorpus, tmp_path: Path) -> None:
    """Lightning refuses to clip where the optimizer itself undoes the loss scaling; float16 itself needs a GPU."""
    data = LanguageModelingData(corpus, Character(special_tokens=[]), 16, 4, cache_dir=str(tmp_path / "cache"))
    task = LanguageModeling(
        partial(DecoderOnly, dims=Dims(16, 2, 2)),
        data.vocabulary,
        max_steps=1,
        optimizer=partial(torch.optim.AdamW, fused=True),
    )
    trainer = Trainer(
        max_steps=1,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        accelerator="cpu",
    )
    trainer.fit(task, datamodule=data)
    MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu")).clip_gradients(trainer.optimizers[0], 1.0)


def test_the_optimizer_is_there_without_a_trainer(corpus: FilesCorpus, tmp_path: Path) -> None:
    """A loop of one's own takes network, loss and optimizer from the task."""
    data = LanguageModelingData(corpus, Character(special_tokens=[]), 16, 4, cache_dir=str(tmp_path / "cache"))
    task = LanguageModeling(partial(DecoderOnly, dims=Dims(16, 2, 2)), data.vocabulary, max_steps=1)
    task.configure_model()
    assert isinstance(task.configure_optimizers()["optimizer"], torch.optim.AdamW)
