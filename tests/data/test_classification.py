"""Labelled rows: batches hold what the files say, padding is padding, and faults are named before training starts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_transformer.data.bucketing import TokenBudget
from lit_transformer.data.classification import ClassificationData, LabelledRows
from lit_transformer.data.layouts import KeepEnds, KeepStart, Layout, SourceLayout, Truncation, TypedLayout
from lit_transformer.data.rows import FileRows
from lit_transformer.data.stdlib_packages import StdlibPackages
from lit_transformer.data.tokenizers import Word
from lit_transformer.errors import UserError

SPECIAL = ["<pad>", "<unk>", "<cls>", "<sep>"]
PAD, UNK, CLS, SEP = range(4)
Rows = list[dict[str, Any]]


def write(folder: Path, **splits: Rows) -> FileRows:
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FileRows(data_dir=str(folder))


def texts(count: int, label: Any = lambda i: "ab"[i % 2]) -> Rows:
    return [{"text": " ".join(f"w{(i + j) % 7}" for j in range(1 + i % 5)), "label": label(i)} for i in range(count)]


def made(corpus: Any, **arguments: Any) -> ClassificationData:
    return ClassificationData(corpus, Word(special_tokens=SPECIAL), **arguments)


def test_batches_hold_the_rows(tmp_path: Path) -> None:
    train = texts(23)
    data = made(write(tmp_path, train=train, validation=train[:4]), batches=TokenBudget(64, multiple=4))
    assert data.classes.names == ("a", "b") and data.classes.counts == (12, 11)
    assert data.vocabulary.max_len == 128 and data.vocabulary.pad_id == PAD
    seen: list[int] = []
    for batch in data.val_dataloader():
        assert batch.tokens.shape[1] % 4 == 0
        for number, row in enumerate(batch.ids.tolist()):
            real = batch.tokens[number, : int((batch.tokens[number] != PAD).sum())].tolist()
            assert real[0] == CLS and real[-1] == SEP
            assert data.tokenizer.decode(real[1:-1]) == train[row]["text"]
            assert data.classes.names[int(batch.labels[number])] == train[row]["label"]
            assert batch.documents is not None
            assert (batch.documents[number] == 0).tolist() == [i < len(real) for i in range(batch.tokens.shape[1])]
        seen += batch.ids.tolist()
    assert sorted(seen) == [0, 1, 2, 3]
    first = next(iter(data.train_dataloader()))
    assert int(first.window_tokens) == len(first) == int(first.target_count)


def test_a_row_of_padding_has_no_label(tmp_path: Path) -> None:
    data = made(write(tmp_path, train=texts(6)))
    batch = data.rows("train", False).batch(np.array([2, -1]))
    assert batch.labels.tolist()[1] == -100 and int(batch.target_count) == 1
    assert batch.documents is not None and (batch.documents[1] == -1).all()


def pairs() -> Rows:
    return [{"premise": "a b c", "hypothesis": "a b", "gold": i % 2} for i in range(8)]


def rows_of(folder: Path, layout: Layout, **more: Any) -> LabelledRows:
    corpus = write(folder, train=pairs(), validation=pairs())
    data = made(corpus, text=["premise", "hypothesis"], label="gold", layout=layout, **more)
    assert data.classes.names == ("0", "1")
    return data.rows("validation", False)


def test_layouts_of_pairs(tmp_path: Path) -> None:
    a, b, c = (rows_of(tmp_path, Layout()).tokenizer.encode(word)[0] for word in "abc")
    whole = [CLS, a, b, c, SEP, a, b, SEP]
    one = rows_of(tmp_path, Layout()).batch(np.array([0]))
    assert one.tokens.tolist() == [whole] and one.types is None and one.documents is None
    assert "types" not in one.inputs and one.inputs["positions"] is None
    typed = rows_of(tmp_path, TypedLayout()).batch(np.array([0]))
    assert typed.types is not None and typed.types.tolist() == [[0, 0, 0, 0, 0, 1, 1, 1]]
    read = rows_of(tmp_path, SourceLayout()).batch(np.array([0, 1]))
    assert read.source is not None and read.source.tolist() == [whole, whole]
    assert read.tokens.shape == (2, 1) and "source" in read.inputs
    short = rows_of(tmp_path, Layout(KeepStart()), max_len=6).batch(np.array([0]))
    assert short.tokens[0][short.tokens[0] != PAD].tolist() == [CLS, a, b, SEP, a, SEP]


@pytest.mark.parametrize("truncation", [KeepStart(), KeepEnds(0.5)])
def test_the_longest_text_loses_first(truncation: Truncation) -> None:
    lengths = np.array([[10, 2], [2, 10], [10, 10], [1, 1], [0, 9]])
    kept = truncation.shares(lengths, 7)
    assert kept.tolist() == [[5, 2], [2, 5], [3, 4], [1, 1], [0, 7]]
    assert truncation.shares(np.array([[10], [3]]), 7).tolist() == [[7], [3]]
    numbers = np.arange(10)
    expected = [0, 1, 2, 3] if isinstance(truncation, KeepStart) else [0, 1, 8, 9]
    assert truncation.cut(numbers, 4).tolist() == expected and truncation.cut(numbers, 12).tolist() == numbers.tolist()


def test_cutting_is_said_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write(tmp_path, train=texts(10), validation=texts(2))
    rows = made(corpus, max_len=5, layout=Layout(KeepStart())).rows("train", True)
    assert rows.lengths(0).max() == 5
    assert "train: 4 of 10 rows are cut to 5 tokens, 12.0% of all" in capsys.readouterr().err


FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "missing column": ({}, {"text": "sentence"}, r"train.jsonl:1: no field 'sentence'; the fields there are: text, lab"),
    "missing label": ({}, {"label": "gold"}, r"train.jsonl:1: no field 'gold'; the fields there are: text, label"),
    "one class": ({"train": texts(5, lambda i: "a")}, {}, "has one class only, 'a'.*data.label"),
    "label that is null": ({"train": texts(2) + [{"text": "x", "label": None}]}, {}, "train.jsonl:3: field 'label' is empty"),
    "label of another kind": ({"train": [{"text": "x", "label": [1]}]}, {}, r"train.jsonl:1: field 'label' is \[1\], must be"),
    "unseen class": (
        {"validation": texts(4) + [{"text": "w1", "label": "c"}]},
        {},
        "validation.jsonl:5: the class 'c' does not occur in the train split; the classes there are: a, b",
    ),
    "too long": ({}, {"max_len": 4}, r"train.jsonl:3: 5 tokens, data.max_len is 4 \(6 of 10 .*longest has 7\).*KeepStart"),
    "empty file": ({"train": []}, {}, "train.jsonl: empty data file"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_named(tmp_path: Path, case: str) -> None:
    splits, arguments, message = FAULTS[case]
    corpus = write(tmp_path, **{"train": texts(10), "validation": texts(4), **splits})
    with pytest.raises(UserError, match=message) as raised:
        made(corpus, **arguments).prepare_data()
    assert "\n" not in str(raised.value)


def test_test_rows_may_lack_labels(tmp_path: Path) -> None:
    corpus = write(tmp_path, train=texts(6), validation=texts(2), test=[{"text": "w1"}, {"text": "w2", "label": None}])
    batch = next(iter(made(corpus).predict_dataloader()))
    assert batch.labels.tolist() == [-100, -100]


def test_classes_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    corpus = write(tmp_path, train=texts(30, lambda i: i % 12), validation=texts(2, lambda i: 10))
    assert made(corpus).classes.names == tuple(map(str, range(12)))


def test_the_cache_is_used_and_follows_the_content(tmp_path: Path, own_cache: Path) -> None:
    made(write(tmp_path, train=texts(12), validation=texts(3))).prepare_data()
    before = sorted(path.name for path in own_cache.iterdir())
    made(write(tmp_path, train=texts(12), validation=texts(3))).prepare_data()
    assert sorted(path.name for path in own_cache.iterdir()) == before
    made(write(tmp_path, train=texts(13), validation=texts(3))).prepare_data()
    assert len(list(own_cache.iterdir())) > len(before)


def test_stdlib_packages_keep_files_apart() -> None:
    corpus, again = StdlibPackages(lines=20, most_snippets=100), StdlibPackages(lines=20, most_snippets=100)
    rows = {split: list(corpus.rows(split)) for split in corpus.splits()}
    assert {split: corpus.fingerprint(split) for split in rows} == {split: again.fingerprint(split) for split in rows}
    files = {split: {row.values["file"] for row in some} for split, some in rows.items()}
    assert not files["train"] & files["validation"] and not files["train"] & files["test"]
    assert not files["validation"] & files["test"]
    packages = {split: {row.values["label"] for row in some} for split, some in rows.items()}
    assert packages["train"] == packages["validation"] == packages["test"] and len(packages["train"]) >= 5
    assert all(row.values["file"].startswith(row.values["label"] + "/") for row in rows["train"])
    with pytest.raises(UserError, match="data.corpus.least_files: no package has 100000 files"):
        list(StdlibPackages(least_files=100000).rows("train"))


def test_a_batch_survives_the_trip_to_a_device(tmp_path: Path) -> None:
    batch = rows_of(tmp_path, TypedLayout()).batch(np.array([0, 1, 2])).to("cpu")
    assert batch.types is not None and batch.labels.dtype == torch.int64
