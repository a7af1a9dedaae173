#!/usr/bin/env python
"""What simple methods make of a classification recipe's rows (extra ``bench``).

Three baselines, trained on exactly the train rows of the recipe and scored on its other splits:

  tf-idf             words, TF-IDF, logistic regression, with scikit-learn's defaults
  tf-idf tuned       words and pairs of words, sublinear; the strength of regularisation chosen on validation
  bag of embeddings  the recipe's own tokens: their mean embedding and a linear layer, the best of its epochs on
                     validation (fastText without n-grams)

example: python scripts/baselines.py --config classification/sst2 --data.corpus.folder path/to/sst2
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""C of the logistic regression: the higher, the less it is regularised."""


def recipe_data(configs: list[str], overrides: list[str]) -> Any:
    """The DataModule of a recipe, given as its files: a recipe and overlays."""
    from lit_transformer.cli.arguments import parse_arguments
    from lit_transformer.cli.resolution import Resolution
    from lit_transformer.cli.training import TrainingCLI, quiet
    from lit_transformer.data.classification import ClassificationData
    from lit_transformer.errors import UserError

    quiet()
    files = [part for config in configs for part in ("--config", config)]
    arguments = parse_arguments("fit", [*files, *overrides])
    data = TrainingCLI(Resolution(arguments.recipe(), arguments.allow), "fit").datamodule
    if not isinstance(data, ClassificationData):
        raise UserError(f"{configs[0]}: its data is {type(data).__name__}; baselines are for ClassificationData")
    return data


def texts_and_labels(data: Any, split: str) -> tuple[list[str], list[str]]:
    """The rows of a split; several texts of a row are joined by a line end."""
    rows = list(data.corpus.rows(split))
    return ["\n".join(row.text(field) for field in data.text) for row in rows], [str(r.value(data.label)) for r in rows]


def scores(true: Any, predicted: Any) -> dict[str, float]:
    """Accuracy, macro F1 and Matthews correlation, in percent."""
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    return {
        "accuracy": 100 * float(accuracy_score(true, predicted)),
        "macro_f1": 100 * float(f1_score(true, predicted, average="macro")),
        "matthews": 100 * float(matthews_corrcoef(true, predicted)),
    }


def tf_idf(data: Any, splits: list[str], tuned: bool) -> tuple[str, dict[str, dict[str, float]]]:
    """TF-IDF and logistic regression: a note, and the scores of each split."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True) if tuned else TfidfVectorizer()
    texts, labels = texts_and_labels(data, "train")
    features = vectorizer.fit_transform(texts)
    held_out = {split: texts_and_labels(data, split) for split in splits}
    best, note, found = -1.0, "", {}
    for strength in STRENGTHS if tuned else (1.0,):
        model = LogisticRegression(C=strength, max_iter=1000).fit(features, labels)
        results = {s: scores(y, model.predict(vectorizer.transform(x))) for s, (x, y) in held_out.items()}
        if results["validation"]["accuracy"] > best:
            best, note, found = results["validation"]["accuracy"], f"C {strength:g}", results
    return f"{features.shape[1]:,} features, {note}", found


def bag_of_embeddings(
    data: Any, splits: list[str], width: int, epochs: int, rate: float, seed: int
) -> tuple[str, dict[str, dict[str, float]]]:
    """The mean of learned embeddings and a linear layer: a note, and the scores of each split at the best epoch."""
    import torch
    from torch import nn

    from lit_transformer.data.bucketing import BucketedLoader, RowEvaluationLoader

    torch.manual_seed(seed)
    table = nn.EmbeddingBag(data.vocabulary.size, width, mode="sum", sparse=False)
    nn.init.normal_(table.weight, std=0.1)
    layer = nn.Linear(width, len(data.classes.names))
    optimizer = torch.optim.Adam([*table.parameters(), *layer.parameters()], lr=rate)

    def classify(batch: Any) -> Any:
        real = torch.ones_like(batch.tokens) if batch.documents is None else batch.documents >= 0
        return layer(table(batch.tokens, per_sample_weights=real.float()) / real.sum(1, keepdim=True))

    def evaluate(split: str) -> dict[str, float]:
        true, predicted = [], []
        with torch.no_grad():
            for batch in RowEvaluationLoader(data.rows(split, False), data.batches):
                true += batch.labels.tolist()
                predicted += classify(batch).argmax(-1).tolist()
        return scores(true, predicted)

    loader = BucketedLoader(data.rows("train", True), data.batches, seed)
    best, note, found = -1.0, "", {}
    for epoch in range(1, epochs + 1):
        for batch in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(classify(batch), batch.labels).backward()
            optimizer.step()
        results = {split: evaluate(split) for split in splits}
        if results["validation"]["accuracy"] > best:
            best, note, found = results["validation"]["accuracy"], f"epoch {epoch} of {epochs}", results
    parameters = table.weight.numel() + sum(p.numel() for p in layer.parameters())
    return f"{parameters:,} parameters, {note}", found


def rows_of_table(data: Any, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Trains each baseline and says what it scores."""
    splits = [split for split in ("validation", "test") if data.has_split(split)]
    methods = {
        "tf-idf": lambda: tf_idf(data, splits, tuned=False),
        "tf-idf tuned": lambda: tf_idf(data, splits, tuned=True),
        "bag of embeddings": lambda: bag_of_embeddings(
            data, splits, options.width, options.epochs, options.rate, options.seed
        ),
    }
    for name in options.methods:
        started = time.perf_counter()
        note, found = methods[name]()
        yield {"method": name, "note": note, "seconds": round(time.perf_counter() - started, 1), **found}


METHODS = ("tf-idf", "tf-idf tuned", "bag of embeddings")


def main() -> int:
    """Prints a row a baseline, and writes them all as JSON where asked to."""
    parser = argparse.ArgumentParser(
        prog="baselines.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", required=True, action="append", help="a classification recipe, by name or file, then its overlays"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="default: all")
    parser.add_argument("--width", type=int, default=64, help="size of the bag's embeddings (default: 64)")
    parser.add_argument("--epochs", type=int, default=10, help="passes of the bag over the rows (default: 10)")
    parser.add_argument("--rate", type=float, default=5e-3, help="learning rate of the bag (default: 0.005)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the bag (default: 1)")
    parser.add_argument("--output", type=Path, help="also write the scores to this JSON file")
    options, overrides = parser.parse_known_args()
    from lit_transformer.errors import LitTransformerError

    results = []
    try:
        data = recipe_data(options.config, overrides)
        for row in rows_of_table(data, options):
            results.append(row)
            print(f"{row['method']:<18} {row['seconds']:7.1f} s  {row['note']}")
            for split in ("validation", "test"):
                if split in row:
                    print(f"  {split:<11}" + "".join(f" {name} {value:6.2f}" for name, value in row[split].items()))
            sys.stdout.flush()
    except LitTransformerError as error:
        print(f"baselines: {error}", file=sys.stderr)
        return error.exit_code
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
