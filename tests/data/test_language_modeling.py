"""The DataModule: prepared once, complete batches, and a Trainer that goes on exactly."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_transformer.data.batch import LanguageBatch
from lit_transformer.data.corpora import Corpus
from lit_transformer.data.files import FilesCorpus
from lit_transformer.data.language_modeling import LanguageModelingData
from lit_transformer.data.packing import FixedGrid
from lit_transformer.data.tokenizers import Bytes, Character
from lit_transformer.errors import UserError

from .conftest import ListCorpus, random_texts


class StreamedList(ListCorpus):
    streaming = True
    buffer_size = 5


def data(corpus: Corpus, **arguments: Any) -> LanguageModelingData:
    return LanguageModelingData(corpus, Character(["<eos>"]), **{"block_size": 8, "batch_size": 3, **arguments})


class Recorder(LightningModule):
    """Notes what it is shown, after a number that only dropout's generator knows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[list[int], int]] = []
        self.evaluated: list[int] = []
        self.steps: list[int] = []

    def training_step(self, batch: LanguageBatch, index: int) -> torch.Tensor:
        self.seen.append((batch.ids.tolist(), int(batch.window_tokens)))
        self.steps.append(self.global_step)
        return self.weight.sum()

    def validation_step(self, batch: LanguageBatch, index: int) -> None:
        self.evaluated += batch.ids.tolist()

    def test_step(self, batch: LanguageBatch, index: int) -> None:
        self.evaluated += batch.ids.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, max_steps: int, accumulate: int, **arguments: Any) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=-1,
        max_steps=max_steps,
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **arguments,
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", [ListCorpus, StreamedList])
def test_a_trainer_goes_on_exactly(tmp_path: Path, kind: type[ListCorpus], accumulate: int, workers: int) -> None:
    if workers and kind is StreamedList:
        pytest.skip("a stream is read without workers")
    lists = {"train": random_texts(12, 30), "validation": random_texts(3, 30, seed=1)}
    make = lambda: data(kind(**lists), num_workers=workers)  # noqa: E731
    epoch = len(make().train_dataloader()) // accumulate if kind is ListCorpus else 7
    last = 2 * epoch + 5
    save = ModelCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    through = Recorder()
    trainer(tmp_path, last, accumulate, callbacks=[save]).fit(through, make())
    assert len(through.seen) == last * accumulate
    assert through.steps == [step for step in range(last) for _ in range(accumulate)]
    stops = [1, epoch - 1, epoch, epoch + 1, 2 * epoch, 2 * epoch + 1]
    for stop in stops if workers == 0 else stops[2:4]:
        again = Recorder()
        trainer(tmp_path, last, accumulate, enable_checkpointing=False).fit(
            again, make(), ckpt_path=tmp_path / "saved" / f"step={stop}.ckpt"
        )
        assert again.seen == through.seen[stop * accumulate :], stop


@pytest.mark.parametrize("stop", [3, 7, 8])
@pytest.mark.parametrize(("accumulate", "batch_size"), [(2, 3), (4, 1), (3, 5)])
def test_a_trainer_goes_on_with_other_batches(tmp_path: Path, stop: int, accumulate: int, batch_size: int) -> None:
    """The order goes on, every optimizer step sees a whole window, and epochs are as long as ever."""
    lists = {"train": random_texts(12, 30), "validation": random_texts(3, 30, seed=1)}
    save = ModelCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer(tmp_path, 9, 1, callbacks=[save]).fit(Recorder(), data(ListCorpus(**lists)))
    order = data(ListCorpus(**lists)).train_dataloader().order
    again = Recorder()
    run = trainer(tmp_path, 18, accumulate, enable_checkpointing=False)
    run.fit(again, data(ListCorpus(**lists), batch_size=batch_size), ckpt_path=tmp_path / "saved" / f"step={stop}.ckpt")
    ids = [number for row, _ in again.seen for number in row]
    assert ids == order(3 * stop, 3 * stop + len(ids)).tolist()
    assert again.steps == [step for step in range(stop, 18) for _ in range(accumulate)]


def test_validation_and_test_see_each_block_once(tmp_path: Path, corpus: ListCorpus) -> None:
    recorder, module = Recorder(), data(corpus)
    run = trainer(tmp_path, 2, 1, enable_checkpointing=False)
    for split, verb in (("validation", run.validate), ("test", run.test)):
        recorder.evaluated.clear()
        verb(recorder, module, verbose=False)
        assert sorted(recorder.evaluated) == list(range(math.ceil(module.statistics(split).targets / 8)))


def test_vocabulary_is_known_before_a_trainer(corpus: ListCorpus) -> None:
    vocabulary = data(corpus).vocabulary
    assert (vocabulary.max_len, vocabulary.eos_id, vocabulary.pad_id) == (8, 0, None)
    assert vocabulary.size == 1 + len(set("".join(corpus.lists["train"])))


def test_prepares_once(corpus: ListCorpus, capsys: pytest.CaptureFixture[str]) -> None:
    data(corpus).prepare_data()
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == [
        "Training the tokenizer",
        "Tokenising train",
        "Tokenising validation",
    ]
    data(corpus).prepare_data()
    assert capsys.readouterr().err == ""
    data(corpus, block_size=16).prepare_data()  # cut when read, so nothing is made again
    assert capsys.readouterr().err == ""
    data(ListCorpus(**{**corpus.lists, "validation": ["abc"]})).prepare_data()
    assert capsys.readouterr().err.startswith("Tokenising validation")


def test_a_bar_on_a_terminal(
    corpus: ListCorpus, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    data(corpus).prepare_data()
    assert "Tokenising train" in capsys.readouterr().err


def test_batches_survive_lightning_s_precision(tmp_path: Path, corpus: ListCorpus) -> None:
    recorder = Recorder()
    run = trainer(tmp_path, 2, 1, enable_checkpointing=False, precision="bf16-true")
    run.fit(recorder, data(corpus))
    assert len(recorder.seen) == 2


def test_batch_moves_with_all_its_tensors(corpus: ListCorpus) -> None:
    batch = next(iter(data(corpus).val_dataloader()))
    moved = batch.to("meta")
    assert {moved.tokens.device.type, moved.documents.device.type, moved.window_tokens.device.type} == {"meta"}
    assert len(moved) == len(batch)
    alone = LanguageBatch(batch.tokens, batch.positions, batch.ids, batch.window_tokens, targets=batch.targets)
    assert alone.to("meta").documents is None
    for tensor in (batch.tokens, batch.targets, batch.positions, batch.ids, batch.window_tokens, batch.documents):
        assert tensor.dtype == torch.int64


def test_mistakes_are_named(corpus: ListCorpus) -> None:
    with pytest.raises(UserError, match="data.block_size: is 0, must be at least 1"):
        data(corpus, block_size=0)
    with pytest.raises(UserError, match="has no split 'test'"):
        data(ListCorpus(train=["a b"], validation=["a"])).test_dataloader()
    with pytest.raises(UserError, match="streaming corpus is read in the training process"):
        data(StreamedList(train=["a"]), num_workers=1)
    with pytest.raises(UserError, match="needs a validation split of its own"):
        data(StreamedList(train=["a"])).val_dataloader()
    with pytest.raises(UserError, match="the validation split holds no text to predict"):
        data(ListCorpus(train=["abc"], validation=[""])).val_dataloader()
    unseen = LanguageModelingData(ListCorpus(train=["abc"], validation=["ab", "axb"]), Character([]))
    with pytest.raises(UserError, match="validation 1: character 'x' is not in the tokenizer's vocabulary"):
        unseen.val_dataloader()


def test_few_samples_fill_a_window(tmp_path: Path) -> None:
    recorder = Recorder()
    module = data(ListCorpus(train=["abc"], validation=["ab"]), batch_size=16, grid=lambda seed: FixedGrid(seed))
    trainer(tmp_path, 3, 2, enable_checkpointing=False).fit(recorder, module)
    assert [window for _, window in recorder.seen] == [2 * 16 * 4] * 6


def test_nanogpt_s_splits_of_shakespeare(real: Path) -> None:
    corpus = FilesCorpus(
        {"train": "train.txt", "validation": ["validation.txt", "test.txt"]},
        data_dir=str(real / "tinyshakespeare"),
        sample_by="split",
    )
    module = LanguageModelingData(corpus, Character([]), block_size=64, batch_size=12)
    assert module.vocabulary.size == 65
    assert module.statistics("train").tokens == 1_003_854
    validation = module.statistics("validation")
    assert (validation.tokens, validation.targets, validation.bytes, validation.documents) == (
        111_540,
        111_539,
        111_539,
        1,
    )
    with_masks = sum(batch.documents is not None for batch in module.val_dataloader())
    assert with_masks == 1  # the last one, which is padded


def test_streaming_gives_every_token_in_buffered_order(real: Path) -> None:
    corpus = FilesCorpus(data_dir=str(real / "wikitext2"), sample_by="line", streaming=True, buffer_size=50)
    module = LanguageModelingData(corpus, Bytes(), block_size=32, batch_size=4)
    assert module.val_dataloader() is not None
    loader = module.train_dataloader()
    batch = next(iter(loader))
    assert (batch.targets >= 0).all()
    assert int(batch.window_tokens) == 4 * 32
