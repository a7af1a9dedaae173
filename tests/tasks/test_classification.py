"""Classification: exact losses however the window is cut, on every architecture; checkpoints hold all of it."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from lit_transformer.analysis.confusion import confusion_picture
from lit_transformer.blocks.embedding import Embedding
from lit_transformer.blocks.pooling import FirstToken, LastToken, Mean
from lit_transformer.cli.main import main
from lit_transformer.cli.verify_resume import verify_resume
from lit_transformer.data.bucketing import TokenBudget
from lit_transformer.data.classification import Classes, ClassificationData
from lit_transformer.data.layouts import Layout, SourceLayout, TypedLayout
from lit_transformer.data.rows import FileRows
from lit_transformer.data.tokenizers import Word
from lit_transformer.dims import Dims
from lit_transformer.errors import UserError
from lit_transformer.networks import DecoderOnly, EncoderDecoder, EncoderOnly, PrefixLM
from lit_transformer.tasks import Classification
from lit_transformer.tasks.class_weights import Balanced, Given
from lit_transformer.training.trainer import Trainer

SPECIAL = ["<pad>", "<unk>", "<cls>", "<sep>"]
DIMS = Dims(16, 1, 2)


@pytest.fixture
def corpus(tmp_path: Path) -> FileRows:
    """The class is the word that stands twice; "c" is rare."""
    for split, count in (("train", 48), ("validation", 10)):
        labels = ["abc"[0 if i % 2 else 1 + (i % 8 == 0)] for i in range(count)]
        rows = [
            {"text": " ".join([label, *"xyz"[: i % 4], label]), "second": "x y", "label": label}
            for i, label in enumerate(labels)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FileRows(data_dir=str(tmp_path))


class Recorder(Classification):
    """Keeps the gradient and the loss of every optimizer step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gradients: list[Tensor] = []
        self.losses: list[float] = []

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.gradients.append(torch.cat([p.grad.flatten() for p in self.parameters() if p.grad is not None]))
        self.losses.append(float(self._window_loss))
        super().on_before_optimizer_step(optimizer)


def train(
    corpus: FileRows,
    network: Any = EncoderOnly,
    steps: int = 3,
    accumulate: int = 1,
    layout: Layout | None = None,
    text: list[str] | str = "text",
    lr: float = 0.1,
    optimizer: Any = torch.optim.SGD,
    loader: Any = None,
    **task: Any,
) -> tuple[Recorder, Trainer]:
    torch.manual_seed(0)
    data = ClassificationData(
        corpus, Word(special_tokens=SPECIAL), text, max_len=16, layout=layout, batches=TokenBudget(64)
    )
    module = Recorder(
        partial(network, dims=DIMS),
        data.vocabulary,
        data.classes,
        max_steps=steps,
        optimizer=partial(optimizer, lr=lr),
        **{"dropout": 0.0, **task},
    )
    trainer = Trainer(
        max_steps=steps,
        validate_every=steps,
        accumulate_grad_batches=accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
        precision=64,
    )
    if loader is None:
        trainer.fit(module, datamodule=data)
    else:
        trainer.fit(module, loader(data), data.val_dataloader())
    return module, trainer


def cut(data: ClassificationData, parts: list[list[int]]) -> Any:
    """The same 8 rows in one window, in batches of these rows."""
    rows = data.rows("train", True)
    batches = [rows.batch(np.array(part), 8) for part in parts]
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [None, Balanced(), Given({"c": 5.0})])
def test_however_the_window_is_cut(corpus: FileRows, weights: Any) -> None:
    runs = [
        train(
            corpus, steps=1, accumulate=len(parts), class_weights=weights, label_smoothing=0.1,
            loader=lambda data, parts=parts: cut(data, parts),
        )[0]
        for parts in ([list(range(8))], [[0], [1, 2, 3, 4, 5, 6], [7]], [[i] for i in range(8)])
    ]  # fmt: skip
    for other in runs[1:]:
        assert other.losses == pytest.approx(runs[0].losses, rel=1e-9)
        torch.testing.assert_close(other.gradients[0], runs[0].gradients[0], rtol=1e-9, atol=1e-12)
    assert len(runs[0].gradients[0]) == sum(p.numel() for p in runs[0].parameters()), "something is not trained"


def test_weights_have_a_mean_of_one_over_the_rows() -> None:
    classes = Classes(("a", "b"), (90, 10))
    for weighting, ratio in ((Balanced(), 9.0), (Balanced(0.5), 3.0), (Given({"b": 4.0}), 4.0)):
        a, b = weighting.weights(classes)
        assert b / a == pytest.approx(ratio) and 0.9 * a + 0.1 * b == pytest.approx(1.0)
    with pytest.raises(UserError, match="there is no class 'z'; the classes are a, b"):
        Given({"z": 1.0}).weights(classes)


CASES: dict[str, tuple[Any, Any, Any, Any]] = {
    "encoder, mean": (EncoderOnly, Layout(), Mean, "text"),
    "encoder, first token": (EncoderOnly, Layout(), FirstToken, "text"),
    "encoder, pairs with types": (
        partial(EncoderOnly, embedding=partial(Embedding, types=2)), TypedLayout(), FirstToken, ["text", "second"],
    ),
    "decoder": (DecoderOnly, Layout(), LastToken, "text"),
    "prefix-LM": (PrefixLM, Layout(), LastToken, "text"),
    "encoder-decoder": (EncoderDecoder, SourceLayout(), LastToken, "text"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_architecture_learns(corpus: FileRows, case: str) -> None:
    network, layout, pooling, text = CASES[case]
    _, trainer = train(
        corpus, network, 60, layout=layout, pooling=pooling, text=text, lr=1e-2, optimizer=torch.optim.AdamW
    )
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["val/accuracy"] == 1.0, metrics
    assert metrics["val/macro_f1"] == 1.0 and metrics["val/matthews"] == 1.0


def test_metrics_are_those_of_the_whole_split(corpus: FileRows) -> None:
    """An untrained network, against a loop by hand."""
    module, trainer = train(corpus, steps=1, lr=1e-9)
    data = ClassificationData(corpus, Word(special_tokens=SPECIAL), max_len=16)
    module.double().eval()
    rows = data.rows("validation", False)
    batch = rows.batch(np.arange(len(rows)))
    with torch.no_grad():
        scores, _ = module(batch)
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(float(F.cross_entropy(scores, batch.labels)))
    accuracy = float((scores.argmax(-1) == batch.labels).double().mean())
    assert float(trainer.callback_metrics["val/accuracy"]) == pytest.approx(accuracy, abs=1e-6)
    predicted = module.predict_step(batch, 0)
    assert [row["id"] for row in predicted] == list(range(10))
    assert all(sum(row["probabilities"].values()) == pytest.approx(1.0) for row in predicted)
    assert [row["label"] for row in predicted] == [data.classes.names[i] for i in scores.argmax(-1)]


def test_the_picture() -> None:
    picture = confusion_picture(torch.tensor([[9, 1], [0, 0]]), ["negative", "positive"], width=100)
    assert picture.shape[0] == 3 and picture.dtype == torch.uint8
    assert confusion_picture(torch.eye(77, dtype=torch.long), [str(i) for i in range(77)], width=160).shape[1] > 150


RECIPE = """
seed_everything: 1
model:
  class_path: Classification
  network: {class_path: EncoderOnly, dims: {d_model: 16, n_layers: 1, n_heads: 2}}
  pooling: FirstTokenTanh
data:
  class_path: ClassificationData
  corpus: {class_path: FileRows, data_dir: .}
  tokenizer: {class_path: Word, special_tokens: [<pad>, <unk>, <cls>, <sep>]}
  batches: {class_path: TokenBudget, tokens: 64}
trainer: {max_steps: 8, validate_every: 4}
"""


def test_a_run_from_the_command_line(
    corpus: FileRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """fit, validate, predict; other classes are refused; a killed run goes on bit for bit, with EMA and bucketing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    Path("r.yaml").write_text(RECIPE)
    assert main(["fit", "--config", "r.yaml", "--output", "run"]) == 0, capsys.readouterr().err
    assert main(["validate", "--checkpoint", "run"]) == 0
    printed = {line.split(" ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("val/")}
    assert printed == {"val/loss", "val/accuracy", "val/macro_f1", "val/matthews"}
    assert main(["predict", "--checkpoint", "run", "--output", "p.jsonl"]) == 0
    rows = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    assert len(rows) == 10 and set(rows[0]["probabilities"]) == {"a", "b", "c"}
    other = Path("train.jsonl").read_text().replace('"label": "c"', '"label": "d"')
    Path("other").mkdir()
    for split in ("train", "validation"):
        Path("other", f"{split}.jsonl").write_text(other)
    capsys.readouterr()
    code = main(["validate", "--checkpoint", "run", "--data.corpus.data_dir", "other"])
    assert code == 2 and "its 3 classes are not the 3 of the data ('c' is not in both)" in capsys.readouterr().err
    report = verify_resume(["--config", "r.yaml", "--trainer.callbacks+", "EMA"], steps=9, at=4, lost=2)
    assert report.same, str(report)
    wrong = RECIPE.replace("ClassificationData", "LanguageModelingData").replace("FileRows", "FilesCorpus")
    Path("w.yaml").write_text(wrong.replace("  batches: {class_path: TokenBudget, tokens: 64}\n", ""))
    capsys.readouterr()
    assert main(["fit", "--config", "w.yaml", "--output", "w"]) == 2
    assert "LanguageModelingData has no classes" in capsys.readouterr().err
