"""Local files: what each format gives, and one line with file and row for whatever is wrong with them."""

import bz2
import gzip
import json
import lzma
import random
from pathlib import Path

import pytest

from lit_transformer.data.files import FilesCorpus
from lit_transformer.data.hub import HubCorpus
from lit_transformer.errors import LitTransformerError, UserError

ROWS = ["one two", 'three, "four"\nfive', "sechs \u00fc"]


def texts(corpus: FilesCorpus | HubCorpus, split: str = "train") -> list[str]:
    return [document.text for document in corpus.documents(split)]


def json_lines(rows: list[str]) -> str:
    return "".join(json.dumps({"id": number, "text": row}) + "\n" for number, row in enumerate(rows))


def write(folder: Path, name: str, content: str | bytes) -> str:
    raw = content.encode() if isinstance(content, str) else content
    compress = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.get(Path(name).suffix, bytes)
    (folder / name).write_bytes(compress(raw))
    return name


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz", "train.json.xz", "train.ndjson.bz2"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, json_lines(ROWS))
    assert texts(FilesCorpus(name, data_dir=str(tmp_path), validation_fraction=1e-9)) != []
    corpus = FilesCorpus({"train": name, "validation": name}, data_dir=str(tmp_path))
    assert texts(corpus) == ROWS


def test_json_array_csv_tsv_parquet_agree(tmp_path: Path) -> None:
    import csv

    import pyarrow
    import pyarrow.parquet

    write(tmp_path, "a.json", json.dumps([{"text": row} for row in ROWS], indent=1))
    for name, delimiter in (("b.csv", ","), ("c.tsv", "\t")):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([("id", "text"), *enumerate(ROWS)])
    pyarrow.parquet.write_table(pyarrow.table({"text": ROWS}), tmp_path / "d.parquet")
    for name in ("a.json", "b.csv", "c.tsv", "d.parquet"):
        corpus = FilesCorpus({"train": name, "validation": name}, data_dir=str(tmp_path))
        assert texts(corpus) == ROWS, name


def test_text_by_document_line_paragraph_and_split(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "one\r\ntwo\n\n  \nthree")
    write(tmp_path, "b.txt.gz", " four\n")
    files: dict[str, str | list[str]] = {"train": ["a.txt", "b.txt.gz"], "validation": "b.txt.gz"}
    expected = {
        "document": ["one\ntwo\n\n  \nthree", " four\n"],
        "line": ["one", "two", "  ", "three", " four"],
        "paragraph": ["one\ntwo", "three", " four"],
        "split": ["one\ntwo\n\n  \nthree four\n"],
    }
    for sample_by, documents in expected.items():
        corpus = FilesCorpus(files, data_dir=str(tmp_path), sample_by=sample_by)  # type: ignore[arg-type]
        assert texts(corpus) == documents


def test_splits_are_found_in_a_folder_and_by_pattern(tmp_path: Path) -> None:
    for name in ("train.txt", "validation.txt", "other.txt"):
        write(tmp_path, name, name)
    corpus = FilesCorpus(data_dir=str(tmp_path))
    assert texts(corpus) == ["train.txt"]
    assert texts(corpus, "validation") == ["validation.txt"]
    assert not corpus.has_split("test")
    with pytest.raises(UserError, match="no split 'test'; the splits there are: train, validation"):
        texts(corpus, "test")
    pattern = FilesCorpus({"train": "[ot]*.txt", "validation": "validation.txt"}, data_dir=str(tmp_path))
    assert texts(pattern) == ["other.txt", "train.txt"]
    assert texts(FilesCorpus({"train": str(tmp_path / "t*.txt"), "validation": "validation.txt"}, str(tmp_path)))


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    prints = []
    for folder, content in ((one, "same"), (two, "same"), (one, "other")):
        folder.mkdir(exist_ok=True)
        write(folder, "train.txt", content)
        prints.append(FilesCorpus(data_dir=str(folder)).fingerprint("train"))
    assert prints[0] == prints[1] != prints[2]
    assert FilesCorpus(data_dir=str(one), sample_by="line").fingerprint("train") != prints[2]


MALFORMED: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("train.txt", "", "train.txt: empty data file"),
    "not UTF-8": ("train.txt", b"abc\xffdef", r"train.txt:1: not UTF-8 at byte 3 \(0xff\)"),
    "UTF-8 cut": ("train.txt", "abcü".encode()[:-1], "train.txt:1: not UTF-8 at byte 3"),
    "UTF-16": ("train.txt", "abc".encode("utf-16"), "train.txt:1: not UTF-8 at byte 0"),
    "not UTF-8, compressed": ("train.txt.gz", b"ab\n\xc3(", "train.txt.gz:2: not UTF-8 at byte 3"),
    "not UTF-8 in JSON": ("train.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', "train.jsonl:2: not UTF-8 at byte 24"),
    "broken JSON": ("train.jsonl", '{"text": "a"}\n\n{"text": \n', "train.jsonl:3: not valid JSON: Expecting value"),
    "JSON cut off": ("train.jsonl", '{"text": "a"}\n{"text": "b', "train.jsonl:2: not valid JSON: Unterminated string"),
    "JSON array cut off": ("train.json", '[{"text": "a"},\n', "train.json: not valid JSON"),
    "deep JSON": ("train.jsonl", "[" * 100000 + "\n", "train.json"),
    "no such field": ("train.jsonl", '{"body": "a", "id": 1}\n', "train.jsonl:1: no field 'text'; .* body, id"),
    "field lost later": ("train.jsonl", '{"text": "a"}\n{"txt": "b"}\n', "train.jsonl:2: no field 'text'; .* txt"),
    "null": ("train.jsonl", '{"text": null}\n', r"train.jsonl:1: field 'text' is empty \(null\)"),
    "number": ("train.jsonl", '{"text": "a"}\n{"text": 3}\n', "train.jsonl:2: field 'text' is of type int"),
    "row is no object": ("train.jsonl", '"text"\n', "train.jsonl:1: a row must be a JSON object"),
    "surrogate": ("train.jsonl", '{"text": "a\\ud800"}\n', "train.jsonl:1: field 'text' holds a lone surrogate"),
    "CSV header": ("train.csv", "body,id\na,1\n", "train.csv:2: no field 'text'; .* body, id"),
    "CSV header alone": ("train.csv", "body,id\n", "train.csv: no field 'text'"),
    "CSV columns": ("train.csv", "id,text\n1,a\n2,b,c\n", "train.csv:3: 3 columns, the header has 2"),
    "CSV quote": ("train.csv", 'id,text\n1,"a\n', "train.csv:.*: not valid CSV"),
    "not gzip": ("train.txt.gz.raw", "no", "train"),
    "not Parquet": ("train.parquet", "no", "train.parquet: cannot be"),
    "only white space": ("train.jsonl", "\n\n", "holds no text"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files(tmp_path: Path, case: str) -> None:
    name, content, message = MALFORMED[case]
    if case == "not gzip":
        (tmp_path / "train.txt.gz").write_text("no")
    else:
        write(tmp_path, name, content)
    with pytest.raises(UserError, match=message) as raised:
        texts(FilesCorpus(data_dir=str(tmp_path)))
    assert "\n" not in str(raised.value)


def test_truncated_compression(tmp_path: Path) -> None:
    for name, compress in (
        ("train.txt.gz", gzip.compress),
        ("train.txt.bz2", bz2.compress),
        ("train.txt.xz", lzma.compress),
    ):
        whole = compress(b"text " * 10000)
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match=f"{name}: .*(broken compressed file|cannot be read)"):
            texts(FilesCorpus({"train": name, "validation": name}, data_dir=str(tmp_path)))


def test_missing_files_and_wrong_splits(tmp_path: Path) -> None:
    folder = str(tmp_path)
    (tmp_path / "sub").mkdir()
    for arguments, message in (
        ({"data_files": "no.txt"}, r"no.txt: no such data file \(data.corpus.data_files, train\)"),
        ({"data_files": "no*.txt"}, "no file matches"),
        ({"data_files": {"valid": "a.txt"}}, "unknown split 'valid'; valid: train, validation, test"),
        ({}, "no file train"),
        ({"data_files": "sub"}, "sub: is a folder"),
    ):
        with pytest.raises(UserError, match=message):
            texts(FilesCorpus(data_dir=folder, **arguments))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="is not a folder"):
        texts(FilesCorpus(data_dir=folder + "/none"))
    with pytest.raises(UserError, match="needs data_files or data_dir"):
        FilesCorpus()
    with pytest.raises(UserError, match="validation_fraction: is 1.5"):
        FilesCorpus("a.txt", validation_fraction=1.5)


def test_200_damaged_files_give_one_line_or_are_read(tmp_path: Path) -> None:
    """Bytes changed, cut out or doubled anywhere: the answer is documents or one line that names the file."""
    draw = random.Random(0)
    originals = {
        "train.txt": "".join(ROWS).encode(),
        "train.jsonl": json_lines(ROWS).encode(),
        "train.csv": b'id,text\n1,one two\n2,"three, four"\n3,five\n',
        "train.jsonl.gz": gzip.compress(json_lines(ROWS).encode()),
    }
    refused = 0
    for number in range(200):
        name = draw.choice(list(originals))
        content = bytearray(originals[name])
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(content))
            kind = draw.randrange(3)
            if kind == 0:
                content[at] = draw.randrange(256)
            elif kind == 1:
                del content[at : at + draw.randint(1, 10)]
            else:
                content[at:at] = content[at : at + draw.randint(1, 10)]
            content = content or bytearray(b"x")
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(content)
        try:
            texts(FilesCorpus({"train": name, "validation": name}, data_dir=str(folder)))
        except LitTransformerError as error:
            refused += 1
            assert name in str(error) or "holds no text" in str(error)
            assert "\n" not in str(error)
    assert refused > 50


def test_a_folder_as_a_data_set_of_the_hub(tmp_path: Path) -> None:
    """A local folder stands in for the hub: the same code of ``datasets`` reads it."""
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder, "train.jsonl", json_lines(ROWS))
    for streaming in (False, True):
        corpus = HubCorpus(str(folder), streaming=streaming)
        corpus.cache_dir = str(tmp_path / "cache")
        assert corpus.splits() == ("train",)
        assert [document.text for document in corpus.read("train")] == ROWS
        assert corpus.fingerprint("train") == corpus.fingerprint("train")
    wrong = HubCorpus(str(folder), field="body")
    wrong.cache_dir = str(tmp_path / "cache")
    with pytest.raises(UserError, match="no field 'body'; the fields there are: id, text"):
        texts(wrong)
    missing = HubCorpus(str(tmp_path / "nothing"))
    missing.cache_dir = str(tmp_path / "cache")
    with pytest.raises(UserError, match="nothing: cannot be loaded by datasets") as raised:
        texts(missing)
    assert "\n" not in str(raised.value)


def test_novels_and_wikitext(real: Path) -> None:
    novels = FilesCorpus(data_dir=str(real / "novels"))
    assert [len(texts(novels, split)) for split in ("train", "validation", "test")] == [10, 1, 4]
    lines = FilesCorpus(data_dir=str(real / "wikitext2"), sample_by="line")
    assert len(texts(lines, "validation")) == 3760
