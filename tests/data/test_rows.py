"""Rows of named fields: every format gives the same rows, faults are named, validation is carved out the same way."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from lit_transformer.data.readers import Row
from lit_transformer.data.rows import FileRows, HubRows, RowCorpus
from lit_transformer.errors import UserError

VALUES = [{"text": f'line "{i}"\tü, ß', "label": "even" if i % 2 == 0 else "odd"} for i in range(40)]


def write_all(folder: Path, values: list[dict[str, str]]) -> dict[str, str]:
    """The same rows in every format."""
    import pyarrow
    import pyarrow.parquet

    lines = "".join(json.dumps(row) + "\n" for row in values)
    (folder / "rows.jsonl").write_text(lines)
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "rows.json").write_text(json.dumps(values))
    for name, delimiter in (("rows.csv", ","), ("rows.tsv", "\t")):
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(values[0]), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(values)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(values), folder / "rows.parquet")
    return {"rows.jsonl": "rows.jsonl:3", "rows.csv": "rows.csv:4", "rows.parquet": "rows.parquet, row 2"}


def values_of(corpus: RowCorpus, split: str) -> list[dict[str, str]]:
    return [dict(row.values) for row in corpus.rows(split)]


def test_every_format_gives_the_same_rows_and_carves_the_same(tmp_path: Path) -> None:
    wheres = write_all(tmp_path, VALUES)
    carved = set()
    for path in sorted(tmp_path.iterdir()):
        whole = FileRows({"train": path.name, "validation": path.name}, data_dir=str(tmp_path))
        whole.cache_dir = str(tmp_path / "cache")
        assert values_of(whole, "train") == VALUES, path.name
        third = list(whole.rows("train"))[2]
        assert third.where.endswith(wheres.get(path.name, ""))
        corpus = FileRows(path.name, data_dir=str(tmp_path), validation_fraction=0.2)
        corpus.cache_dir = str(tmp_path / "cache")
        train, validation = values_of(corpus, "train"), values_of(corpus, "validation")
        assert len(validation) == 8 and not corpus.has_split("test")
        assert [row for row in VALUES if row in train] == train
        assert sorted(train + validation, key=str) == sorted(VALUES, key=str)
        carved.add(str(validation))
    assert len(carved) == 1, "which rows are held out depends on nothing but their content"


def test_the_order_of_the_rows_and_repeated_rows_do_not_change_the_carving(tmp_path: Path) -> None:
    def held_out(values: list[dict[str, str]]) -> set[str]:
        (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in values))
        corpus = FileRows(data_dir=str(tmp_path), validation_fraction=0.2)
        train, validation = values_of(corpus, "train"), values_of(corpus, "validation")
        assert not {str(row) for row in train} & {str(row) for row in validation}
        return {str(row) for row in validation}

    assert held_out(VALUES) == held_out(VALUES[::-1])
    assert held_out(VALUES + VALUES) == held_out(VALUES)


def test_fingerprints_follow_the_content(tmp_path: Path) -> None:
    prints = []
    for name, values in (("a", VALUES), ("b", VALUES), ("c", VALUES[1:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in values))
        corpus = FileRows(f"{name}.jsonl", data_dir=str(tmp_path))
        prints.append((corpus.fingerprint("train"), corpus.fingerprint("validation")))
    assert prints[0] == prints[1]
    assert prints[0][0] != prints[2][0] and prints[0][1] != prints[2][1] and prints[0][0] != prints[0][1]


MALFORMED: dict[str, tuple[str, bytes, str]] = {
    "empty file": ("train.csv", b"", "train.csv: empty data file"),
    "no rows": ("train.jsonl", b"\n\n", "train.jsonl: holds no rows"),
    "header alone": ("train.csv", b"text,label\n", "train.csv: holds no rows"),
    "bad JSON": ("train.jsonl", b'{"text": "a"}\n{"text": \n', "train.jsonl:2: not valid JSON"),
    "no object": ("train.jsonl", b'["a", "b"]\n', "train.jsonl, row 1: a row must be a JSON object"),
    "not UTF-8": (
        "train.tsv",
        b"text\tlabel\n\xff\t1\n",
        r"train.tsv:2: not UTF-8 at byte 11 \(0xff\); convert the file",
    ),
    "columns": ("train.tsv", b"text\tlabel\na\n", "train.tsv:2: 1 columns, the header has 2"),
    "not Parquet": ("train.parquet", b"no", "train.parquet: cannot be"),
    "one row": ("train.jsonl", b'{"text": "a"}\n', "cannot carve a validation split out of 1 rows; give one"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files(tmp_path: Path, case: str) -> None:
    name, content, message = MALFORMED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        list(FileRows(data_dir=str(tmp_path)).rows("train"))
    assert "\n" not in str(raised.value)


def test_a_field_that_is_not_there_or_no_text() -> None:
    row = Row("train.csv:7", {"text": "a", "id": 3, "note": None})
    assert row.text("text") == "a" and row.value("id") == 3
    for field, message in (
        ("sentence", "train.csv:7: no field 'sentence'; the fields there are: text, id, note"),
        ("id", "train.csv:7: field 'id' is of type int, must be text"),
        ("note", r"train.csv:7: field 'note' is empty \(null\)"),
    ):
        with pytest.raises(UserError, match=message):
            row.text(field)


def test_unknown_split(tmp_path: Path) -> None:
    write_all(tmp_path, VALUES)
    with pytest.raises(UserError, match="FileRows has no split 'test'; the splits there are: train"):
        list(FileRows("rows.csv", data_dir=str(tmp_path)).rows("test"))
    with pytest.raises(UserError, match="FileRows needs data_files or data_dir"):
        FileRows()


def test_the_hub_and_the_same_data_in_a_folder(tmp_path: Path) -> None:
    """A local data set with numbered labels stands in for the hub: the same code of ``datasets`` reads it."""
    import datasets

    names = ["negative", "positive"]
    features = datasets.Features({"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
    content = {"sentence": ["good", "bad", "unknown"], "label": [1, 0, -1]}
    hub = tmp_path / "hub"
    hub.mkdir()
    datasets.Dataset.from_dict(content, features=features).to_parquet(hub / "train.parquet")
    corpus = HubRows(str(hub), rename={"sentence": "text"})
    corpus.cache_dir = str(tmp_path / "cache")
    assert [dict(row.values) for row in corpus.read("train")] == [
        {"text": "good", "label": "positive"},
        {"text": "bad", "label": "negative"},
        {"text": "unknown", "label": None},
    ]
    assert corpus.splits() == ("train",) and corpus.fingerprint("train") == corpus.fingerprint("train")
    here = tmp_path / "here"
    here.mkdir()
    (here / "train.jsonl").write_text('{"text": "good", "label": "positive"}\n{"text": "bad", "label": "negative"}\n')
    local = HubRows("nobody/nothing", rename={"sentence": "text"}, folder=str(here))
    assert [row.text("text") for row in local.read("train")] == ["good", "bad"]
    wrong = HubRows(str(hub), rename={"body": "text"})
    wrong.cache_dir = str(tmp_path / "cache")
    with pytest.raises(UserError, match="no field 'body'; there are: sentence, label"):
        list(wrong.read("train"))
