"""Translation: three architectures, one task; objectives, metrics, alignment, checkpoints, an exact resume."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch

from lit_transformer.analysis.alignment import alignment_picture, cross_attention
from lit_transformer.blocks import Layer
from lit_transformer.cli.main import main
from lit_transformer.cli.verify_resume import verify_resume
from lit_transformer.data.bucketing import TokenBudget
from lit_transformer.data.numerals import Numerals
from lit_transformer.data.pair_layouts import EncoderDecoderLayout, PairLayout, PrefixLayout
from lit_transformer.data.subwords import BPE
from lit_transformer.data.translation import Sides, TranslationData
from lit_transformer.dims import Dims
from lit_transformer.networks import DecoderOnly, EncoderDecoder, PrefixLM
from lit_transformer.tasks import Translation
from lit_transformer.tasks.decoding import BeamSearch
from lit_transformer.tasks.objectives import RDrop
from lit_transformer.tasks.text_metrics import Bleu, Chrf, ExactMatch
from lit_transformer.training.trainer import Trainer

DIMS = Dims(16, 1, 2)
CASES = [(EncoderDecoder, EncoderDecoderLayout()), (PrefixLM, PrefixLayout()), (DecoderOnly, PrefixLayout())]


def make(network: Any = EncoderDecoder, layout: PairLayout | None = None, **more: Any) -> tuple[Translation, Any]:
    torch.manual_seed(0)
    sides = more.pop("sides", None)
    data = TranslationData(
        Numerals(rows=120), BPE(100), sides, max_len=64, layout=layout, batches=TokenBudget(512, rows=8)
    )
    more.setdefault("decoding", BeamSearch(beams=2))
    dropout = more.pop("dropout", 0.0)
    factory = partial(network, dims=DIMS, layer=partial(Layer, dropout=dropout))
    task = Translation(factory, data.vocabulary, 6, partial(torch.optim.AdamW, lr=0.02), **more)
    return task, data


def fit(task: Translation, data: TranslationData, **more: Any) -> Trainer:
    trainer = Trainer(
        max_steps=6,
        validate_every=6,
        limit_val_batches=2,
        limit_predict_batches=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
        log_every_n_steps=1,
        **more,
    )
    trainer.fit(task, datamodule=data)
    return trainer


@torch.no_grad()
def nll(task: Translation, batch: Any) -> float:
    return float(task.likelihood(task(batch).hidden, task.network.head, batch.targets))


@pytest.mark.parametrize(("network", "layout"), CASES)
def test_every_architecture_learns_and_is_scored(network: Any, layout: PairLayout) -> None:
    task, data = make(network, layout)
    task.configure_model()
    batch = data.rows("train", True).batch(np.arange(32))
    before = nll(task, batch)
    trainer = fit(task, data)
    task.eval()
    assert nll(task, batch) < 0.9 * before
    assert {"val/loss", "val/perplexity", "val/bleu", "val/chrf"} <= trainer.callback_metrics.keys()
    done = trainer.predict(task, datamodule=data)
    assert done is not None and len(done) == 2
    for row in (row for rows in done for row in rows):
        assert row["source"] == data.example("test", row["id"]).source and isinstance(row["translation"], str)


@pytest.mark.parametrize(("network", "layout"), CASES)
def test_a_translation_is_the_same_alone_and_among_others(network: Any, layout: PairLayout) -> None:
    task, data = make(network, layout)
    trainer = fit(task, data)
    trainer.datamodule = data  # type: ignore[attr-defined]
    rows = data.rows("validation", False)
    together = task.translate(rows.batch(np.array([3, 17, -1, 40])), "validation")
    alone = [task.translate(rows.batch(np.array([i])), "validation")[0] for i in (3, 17, 40)]
    assert [row for row, *_ in together] == [3, 17, 40]
    assert [text for _, _, text, _ in together] == [text for _, _, text, _ in alone]


def test_padding_rows_and_buckets_do_not_change_the_loss() -> None:
    task, data = make()
    task.configure_model()
    rows = data.rows("validation", False)

    together = nll(task, rows.batch(np.array([1, 2, 3, -1])))
    assert together == pytest.approx(sum(nll(task, rows.batch(np.array([i]))) for i in (1, 2, 3)), rel=1e-5)


@torch.no_grad()
def test_r_drop_is_the_plain_loss_without_dropout_and_more_with_it() -> None:
    task, data = make(objective=RDrop(5.0), dropout=0.3)
    task.configure_model()
    task.double()
    batch = data.rows("train", True).batch(np.arange(8))
    task.eval()
    plain = float(task.loss(task(batch).hidden, task.network.head, batch.targets))
    assert float(task.objective(task, batch)[0]) == pytest.approx(plain, rel=1e-6)
    task.train()
    totals = []
    for alpha in (0.0, 5.0, 10.0):
        torch.manual_seed(1)
        totals.append(RDrop(alpha)(task, batch)[0])
    assert totals[0] < totals[1] < totals[2]
    assert float(totals[2] - totals[0]) == pytest.approx(2 * float(totals[1] - totals[0]), rel=1e-4)
    # The divergence by its definition: KL(p, q) + KL(q, p).
    torch.manual_seed(1)
    p, q = (task(batch).logits.log_softmax(-1)[batch.targets >= 0] for _ in range(2))
    kl = partial(torch.nn.functional.kl_div, reduction="sum", log_target=True)
    assert float(totals[1] - totals[0]) == pytest.approx(float(5 / 4 * (kl(p, q) + kl(q, p))), rel=1e-4)


def test_metrics_are_sacrebleus() -> None:
    hypotheses, references = (
        ["Ein Hund läuft im Park.", "Zwei Katzen"],
        ["Ein hund läuft durch den Park.", "zwei Katzen"],
    )
    assert Bleu()(hypotheses, references) == sacrebleu.corpus_bleu(hypotheses, [references]).score
    lower = Bleu(case="lower")
    assert lower(hypotheses, references) == sacrebleu.corpus_bleu(hypotheses, [references], lowercase=True).score
    assert lower(hypotheses, references) > Bleu()(hypotheses, references)
    assert (lower.name, Bleu().name, Bleu("intl").name) == ("bleu_lower", "bleu", "bleu_intl")
    assert "case:lc" in lower.signature and "tok:13a" in lower.signature
    assert Chrf()(hypotheses, references) == sacrebleu.corpus_chrf(hypotheses, [references]).score
    assert ExactMatch()(["a", "b"], ["a", "c"]) == 0.5


def test_the_alignment_is_what_the_decoder_looked_at() -> None:
    task, data = make()
    task.configure_model()
    task.train()
    batch = data.rows("validation", False).batch(np.array([0, 5]))
    weights = cross_attention(task.network, batch.inputs)
    assert weights is not None and weights.shape == (1, 2, 2, batch.tokens.shape[1], batch.source.shape[1])
    real = batch.documents[1] >= 0 if batch.documents is not None else slice(None)
    assert torch.allclose(weights[0, 1, :, real].sum(-1), torch.ones(()))
    if batch.source_documents is not None:
        assert (weights[0, 1, 0, 0][batch.source_documents[1] < 0] == 0).all()
    assert task.network.training
    picture = alignment_picture(weights[0, 0].mean(0)[:3, :2], ["zwei", "und", "drei"], ["two", "three"])
    assert picture.shape[0] == 3 and picture.dtype == torch.uint8
    task, data = make(DecoderOnly, PrefixLayout())
    task.configure_model()
    assert cross_attention(task.network, data.rows("validation", False).batch(np.array([0])).inputs) is None


def test_a_source_vocabulary_of_its_own_goes_into_the_checkpoint() -> None:
    task, data = make(sides=Sides(source_tokenizer=BPE(80)))
    trainer = fit(task, data)
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=True)
    assert checkpoint["source_tokenizer"] == data.source_tokenizer.to_json() != data.tokenizer.to_json()


RECIPE = """
seed_everything: 1
model:
  class_path: Translation
  network: {class_path: EncoderDecoder, dims: {d_model: 16, n_layers: 1, n_heads: 2}, layer: {class_path: Layer, dropout: 0.2}}
  optimizer: {class_path: AdamW, lr: 0.01}
  decoding: {class_path: BeamSearch, beams: 1}
data:
  class_path: TranslationData
  corpus: {class_path: Numerals, rows: 60}
  tokenizer: {class_path: BPE, vocab_size: 90}
  max_len: 64
  sampling: {class_path: BPEDropout, rate: 0.2}
  batches: {class_path: TokenBudget, tokens: 256, multiple: 4}
trainer:
  max_steps: 20
  limit_val_batches: 1
  accumulate_grad_batches: 2
  callbacks: [{class_path: EMA, decay: 0.9}]
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setenv("LIT_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("workers", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_exactly(recipe: str, workers: str) -> None:
    """With buckets, accumulation, random sub-words, dropout and averaged weights; a pass ends amid the run."""
    report = verify_resume(["--config", recipe, "--data.num_workers", workers], steps=20, at=11)
    assert report.same, str(report)
    assert {"losses", "sample ids", "weights", "averaged weights"} <= {each.what for each in report.comparisons}
    assert report.comparisons[0].total == 40


def test_a_run_shows_translations_and_their_alignment(recipe: str, tmp_path: Path, capsys: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = str(tmp_path / "run")
    assert main(["fit", "--config", recipe, "--trainer.max_steps", "2", "--output", out]) == 0
    said = capsys.readouterr().err
    assert "60 rows in" in said and "of them padding" in said
    events = EventAccumulator(out).Reload()
    assert "validation/alignment" in events.Tags()["images"]
    shown = events.Tensors("validation/translations/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert "nrefs:1|case:mixed|eff:no|tok:13a" in shown
    assert main(["test", "--checkpoint", out, "--trainer.limit_test_batches", "1"]) == 0
    assert "test/bleu" in capsys.readouterr().out
