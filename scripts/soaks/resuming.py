"""Every recipe, killed and resumed."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from soaks.table import Rows, command

EVERYTHING = [
    "--trainer.accumulate_grad_batches", "2", "--data.num_workers=2",
    "--trainer.callbacks+", "{class_path: EMA, decay: 0.9}",
]  # fmt: skip


@command
def resume(folder: Path, scale: float) -> Rows:
    """verify-resume (40 steps against 23, SIGKILL and a resume from 20) on every shipped recipe, shrunk."""
    from lit_transformer.cli.verify_resume import verify_resume
    from lit_transformer.errors import LitTransformerError
    from lit_transformer.recipe import shipped_recipes

    os.environ["LIT_TRANSFORMER_CACHE"] = str(folder / "cache")
    rows: Rows = []
    names = [recipe.name for recipe in shipped_recipes() if not recipe.is_overlay]
    for title, extra in (("accumulation 2, 2 workers, EMA", EVERYTHING), ("", [])):
        for name in names[:: max(1, round(1 / scale))]:
            what, given = title, extra
            if name.startswith("supervised_fine_tuning/"):  # whose data are read in the training process alone
                what, given = title.replace(", 2 workers", ""), [each for each in extra if "num_workers" not in each]
            try:
                report = verify_resume(["--config", name, *_shrunk(name, folder), *given])
                result: Any = report.same
                if not report.same:
                    print(name, what, report, file=sys.stderr)
            except LitTransformerError as error:
                result = str(error)[:160]
            rows.append((f"{name} {what}".strip(), result, True))
            print(*rows[-1], file=sys.stderr, flush=True)
    return rows


def _shrunk(name: str, folder: Path) -> list[str]:
    """Overlay and stand-in data, as the real ones may not be there."""
    task = name.split("/")[0]
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "runs", "home"]
    texts = [" ".join(words[(i * k) % len(words)] for k in range(1, 6 + i % 7)) for i in range(200)]
    (folder / "text.txt").write_text("\n".join(texts * 4))
    rows = [
        {"text": text, "sentence1": text, "sentence2": text[::-1], "label": str(i % 2), "en": text, "de": text.upper()}
        for i, text in enumerate(texts)
    ]
    for split in ("train", "validation", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = ["--data.tokenizer.vocab_size", "300"]
    text_files = ["--data.corpus", f"{{class_path: FilesCorpus, data_files: text.txt, data_dir: {folder}}}"]
    row_files = ["--data.corpus", f"{{class_path: FileRows, data_dir: {folder}}}"]
    if name == "translation/numerals":
        return ["--config", "overlays/tiny_rows", "--data.corpus.rows", "200", *small]
    if name == "classification/stdlib_packages":
        most = ["--data.corpus.lines", "20", "--data.corpus.most_snippets", "20", "--data.batches.tokens", "1024"]
        return ["--config", "overlays/tiny_rows", *most, *small]
    if task in ("translation", "classification"):
        return ["--config", "overlays/tiny_rows", *row_files, *small]
    if task == "supervised_fine_tuning":
        return ["--config", "overlays/tiny_rows", *small]
    if name == "denoising/stdlib":
        return ["--config", "overlays/tiny_rows", *text_files, *small]
    return [
        "--config",
        "overlays/tiny",
        *text_files,
        *(small if task in ("masked_language_modeling", "denoising") else []),
    ]
