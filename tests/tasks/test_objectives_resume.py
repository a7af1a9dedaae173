"""Masked language modelling, denoising, prefixes and fine-tuning go on exactly after a kill."""

import json
from pathlib import Path

import pytest

from lit_transformer.cli.verify_resume import verify_resume

HEAD = """
seed_everything: 1
model:
  class_path: {task}
  network: {{class_path: {network}, dims: {{d_model: 16, n_layers: 1, n_heads: 2}}, layer: {{class_path: Layer, dropout: 0.1}}}}
  optimizer: {{class_path: {optimizer}, lr: 1.0e-2}}
  schedule: {{class_path: Cosine, warmup: 2}}
trainer: {{max_steps: 10, enable_progress_bar: false, accumulate_grad_batches: {accumulate}, callbacks: [{callbacks}]}}
"""
TEXT = """
data:
  class_path: {data}
  corpus: {{class_path: FilesCorpus, data_files: text.txt, data_dir: .}}
  tokenizer: {{class_path: BPE, vocab_size: 60, special_tokens: [<pad>, <eos>, <unk>, <mask>]}}
  block_size: 16
  num_workers: {workers}
  {more}
"""
ROWS = """
data:
  class_path: SupervisedData
  corpus: {{class_path: FileRows, data_files: rows.jsonl, data_dir: .}}
  tokenizer: Bytes
  batches: {{class_path: TokenBudget, tokens: 256}}
"""
CASES = {
    "masked": ("MaskedLanguageModeling", "EncoderOnly", "Muon", 2, "{class_path: EMA, decay: 0.9}",
               TEXT, "MaskedLanguageModelingData", 2, "{batch_size: 4, masking: WholeWordMasking}"),
    "spans": ("Denoising", "EncoderDecoder", "AdamW", 1, "", TEXT, "DenoisingData", 1,
              "{batches: {class_path: TokenBudget, tokens: 256}}"),
    "spans in one": ("Denoising", "PrefixLM", "Muon", 2, "", TEXT, "DenoisingData", 0,
                     "{batches: {class_path: TokenBudget, tokens: 256}, layout: PrefixLayout, objective: PrefixSplit}"),
    "prefixes": ("LanguageModeling", "PrefixLM", "AdamW", 1, "", TEXT, "PrefixLanguageModelingData", 0,
                 "{batch_size: 4}"),
    "responses": ("SupervisedFineTuning", "DecoderOnly", "Muon", 2, "{class_path: EMA, decay: 0.9}", ROWS, "", 0, "{}"),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", ["masked", *(pytest.param(name, marks=pytest.mark.slow) for name in CASES if name != "masked")]
)
def test_resume_is_exact(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    words = ["to be", "or not to be", "that is the question", "whether tis nobler"]
    Path("text.txt").write_text("".join(f"{words[i % 4]}, {words[i % 3]} {i}.\n" for i in range(60)))
    rows = [{"prompt": words[i % 4] + "?", "response": words[i % 3] + "!" * (i % 5)} for i in range(60)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task, network, optimizer, accumulate, callbacks, kind, data, workers, more = CASES[name]
    head = HEAD.format(task=task, network=network, optimizer=optimizer, accumulate=accumulate, callbacks=callbacks)
    lines = "\n  ".join(part.strip() for part in _parts(more))
    Path("tiny.yaml").write_text(head + kind.format(data=data, workers=workers, more=lines))
    report = verify_resume(["--config", "tiny.yaml"], steps=9, at=4, lost=2)
    assert report.same, str(report)


def _parts(more: str) -> list[str]:
    """The keys of a flow mapping, a line each."""
    depth, parts = 0, [""]
    for sign in more[1:-1]:
        depth += (sign == "{") - (sign == "}")
        if sign == "," and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return parts
