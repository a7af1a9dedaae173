"""Data files with a fault each, of every format, for language modelling, classification and translation."""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_transformer.data.classification import ClassificationData
from lit_transformer.data.files import FilesCorpus
from lit_transformer.data.language_modeling import LanguageModelingData
from lit_transformer.data.parallel import ParallelFiles
from lit_transformer.data.rows import FileRows
from lit_transformer.data.supervised import SupervisedData
from lit_transformer.data.tokenizers import Bytes
from lit_transformer.data.translation import Sides, TranslationData
from lit_transformer.data.turns import Messages
from lit_transformer.errors import LitTransformerError

ROWS = 24
"""Rows of a file, of which one is faulty."""

Write = Callable[[Path], None]


@dataclass(frozen=True)
class MalformedFile:
    """A fault.

    Args:
        name: What it is, and where.
        file: Name of the faulty file.
        write: Writes it, and what belongs to it, into a folder.
        data: Makes the DataModule that reads it.
        place: Pattern of how the row is named; ``None`` where the whole file is at fault.
        skipped: Where the fault is no error: rows that are skipped, and counted.
    """

    name: str
    file: str
    write: Write
    data: Callable[[Path], Any]
    place: str | None = None
    skipped: int | None = None


def outcome(case: MalformedFile, folder: Path, said: Callable[[], str]) -> str:
    """What is wrong with how the fault is answered; empty if nothing is.

    Args:
        case: The fault.
        folder: An empty folder.
        said: What was printed on standard error meanwhile.
    """
    case.write(folder)
    try:
        case.data(folder).prepare_data()
    except LitTransformerError as error:
        text = str(error)
        if "\n" in text or len(text) > 1200 or error.exit_code not in (2, 3):
            return f"not one line with code 2 or 3: {text!r}"
        if case.file not in text:
            return f"the file is not named: {text}"
        if case.place is not None and not re.search(case.place, text):
            return f"the row ({case.place}) is not named: {text}"
        return "" if case.skipped is None else f"should have been skipped: {text}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if case.skipped is None:
        return "was not noticed"
    counted = re.search(rf"\b{case.skipped} (of [\d,]+ pairs have an empty side|empty documents? )", said())
    return "" if counted else f"{case.skipped} skipped rows are not counted: {said()!r}"


# -- what the rows of the three tasks are ------------------------------------------------------------------------------


def _rows(task: str, chance: random.Random) -> list[dict[str, Any]]:
    words = [" ".join(chance.choices("the quick brown fox jumps".split(), k=5)) for _ in range(ROWS)]
    if task == "language modelling":
        return [{"id": number, "text": text} for number, text in enumerate(words)]
    if task == "classification":
        return [{"text": text, "label": "ab"[number % 2]} for number, text in enumerate(words)]
    if task == "supervised fine-tuning":
        return [{"prompt": text, "response": text.upper()} for text in words]
    return [{"source": text, "target": text.upper()} for text in words]


def _module(task: str, name: str) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        cache = str(folder / "cache")
        if task == "language modelling":
            corpus = FilesCorpus({"train": name}, data_dir=str(folder), sample_by="line")
            return LanguageModelingData(corpus, Bytes(), block_size=8, batch_size=2, cache_dir=cache)
        rows = FileRows({"train": name}, data_dir=str(folder))
        if task == "classification":
            return ClassificationData(rows, Bytes(), cache_dir=cache)
        if task == "supervised fine-tuning":
            return SupervisedData(rows, Bytes(), cache_dir=cache)
        return TranslationData(rows, Bytes(), cache_dir=cache)

    return make


FIELDS = {
    "language modelling": "text",
    "classification": "text",
    "translation": "target",
    "supervised fine-tuning": "response",
}

# -- formats -----------------------------------------------------------------------------------------------------------


def _json_lines(rows: list[Any]) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def _table(rows: list[Any], delimiter: str) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    first = next(row for row in rows if isinstance(row, dict))
    writer.writerow(first)
    result = [out.getvalue().encode()]
    for row in rows:
        if isinstance(row, bytes):
            result.append(row + b"\n")
            continue
        out.seek(0), out.truncate()
        writer.writerow(row.values())
        result.append(out.getvalue().encode())
    return b"".join(result)


def malformed_files(seed: int = 0) -> list[MalformedFile]:
    """All of them."""
    chance = random.Random(seed)
    found: list[MalformedFile] = []
    for task in FIELDS:
        found += _faults_of_rows(task, chance)
        found += _faults_of_files(task, chance)
    found += _faults_of_text(chance)
    found += _faults_of_parallel_files(chance)
    found += _faults_of_conversations(chance)
    return found


def _faults_of_rows(task: str, chance: random.Random) -> Iterator[MalformedFile]:
    field = FIELDS[task]
    bad_json = {
        "cut off": b'{"%s": "a' % field.encode(),
        "a comma too many": b'{"%s": "a",}' % field.encode(),
        "single quotes": b"{'%s': 'a'}" % field.encode(),
        "bare words": b"{%s: a}" % field.encode(),
        "two objects": b'{"%s": "a"} {"%s": "b"}' % (field.encode(), field.encode()),
        "text behind": b'{"%s": "a"} x' % field.encode(),
        "no JSON": b"hello",
        "a list": b'["a"]',
        "a number": b"3",
        "a string": b'"a"',
        "null": b"null",
        "no UTF-8": b'{"%s": "\xe9"}' % field.encode(),
        "UTF-8 cut off": b'{"%s": "\xc3"}' % field.encode(),
        "a control character": b'{"%s": "a\x01"}' % field.encode(),
        "a lone surrogate": b'{"%s": "\\ud800"}' % field.encode(),
        "too deep": b"[" * 20_000,
        "zeros": b"\0\0\0",
    }
    for name, line in bad_json.items():
        row = chance.randrange(1, ROWS)
        content = _rows(task, chance)
        yield _case(task, f"{name} in row {row + 1}", "train.jsonl", _json_lines([*content[:row], line, *content[row:]]),
                    rf":{row + 1}\b")  # fmt: skip
    values: dict[str, Any] = {
        "no field": ..., "null": None, "a number": 3, "a fraction": 1.5, "a list": ["a"], "an object": {"a": 1},
        "true": True,
    }  # fmt: skip
    for name, value in values.items():
        for suffix in ("jsonl", "json", "jsonl.gz"):
            row = chance.randrange(1, ROWS)
            content = _rows(task, chance)
            content[row][field] = value
            if value is ...:
                del content[row][field]
            data = json.dumps(content).encode() if suffix == "json" else _json_lines(content)
            if suffix.endswith("gz"):
                data = gzip.compress(data)
            place = rf"row {row + 1}\b" if suffix == "json" else rf":{row + 1}\b"
            yield _case(task, f"{field} is {name} in row {row + 1}", f"train.{suffix}", data, place)
    bad_table = {
        "a column too many": b"a,b,c,d",
        "a column too few": b"a",
        "an open quote": b'a,"b',
        "a quote inside": b'a,"b"c',
        "no UTF-8": b"a,\xff",
    }
    for name, line in bad_table.items():
        for suffix, delimiter in (("csv", ","), ("tsv", "\t")):
            row = chance.randrange(1, ROWS)
            content = _rows(task, chance)
            line_of = line.replace(b",", delimiter.encode())
            data = _table([*content[:row], line_of, *content[row:]], delimiter)
            # a quote that never ends is noticed at the end of the file
            place = rf":({row + 2}|{ROWS + 2})\b" if "quote" in name else rf":{row + 2}\b"
            yield _case(task, f"{name} in row {row + 2}", f"train.{suffix}", data, place)


def _faults_of_files(task: str, chance: random.Random) -> Iterator[MalformedFile]:
    good = _rows(task, chance)
    lines = _json_lines(good)
    field = FIELDS[task]
    for name, data in {
        "nothing": b"",
        "blank lines": b"\n\n  \n",
        "UTF-16": lines.decode().encode("utf-16"),
        "UTF-32": lines.decode().encode("utf-32"),
        "an array cut off": json.dumps(good).encode()[:-5],
        "an array of arrays": json.dumps([[1], [2]]).encode(),
        "an object around": json.dumps({"rows": good}).encode(),
        "random bytes": random.Random(1).randbytes(400),
    }.items():
        yield _case(task, name, "train.json" if "array" in name else "train.jsonl", data)
    for name, data in {
        "nothing": b"",
        "a header alone": b"source,target,text,label\n",
        "no header": b"1,2\n3,4\n",
        "another header": b"a,b\n1,2\n",
        "a field twice": f"{field},{field}\n1,2\n3,4\n".encode(),
        "UTF-16": _table(good, ",").decode().encode("utf-16"),
        "a picture": b"\x89PNG\r\n\x1a\n\x00\x00",
    }.items():
        yield _case(task, name, "train.csv", data)
    for suffix, compress in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        whole = compress(lines)
        yield _case(task, f"{suffix} cut off", f"train.jsonl.{suffix}", whole[: len(whole) // 2])
        yield _case(task, f"no {suffix}", f"train.jsonl.{suffix}", lines)
        changed = bytearray(whole)
        for place in range(len(changed) // 3, len(changed) // 3 + 20):
            changed[place] ^= 0x55
        yield _case(task, f"{suffix} damaged", f"train.jsonl.{suffix}", bytes(changed))
    yield _case(task, "no Parquet", "train.parquet", lines)
    yield _case(task, "Parquet cut off", "train.parquet", _parquet(good)[:-30])
    yield _case(
        task, "Parquet without the field", "train.parquet", _parquet([{"other": "a"}, {"other": "b"}]), "row 0|no field"
    )
    yield _case(task, "Parquet with numbers", "train.parquet", _parquet([{**row, field: 3} for row in good]), r"row \d")
    yield _case(task, "Parquet with a gap", "train.parquet", _parquet([*good[:7], {**good[7], field: None}]), "row 7")
    yield _place(task, "a folder", "train.jsonl", lambda path: path.mkdir())
    yield _place(task, "missing", "train.jsonl", lambda path: None)
    yield _place(task, "a link to nothing", "train.jsonl", lambda path: path.symlink_to(path.parent / "nowhere"))
    yield _place(task, "a link to itself", "train.jsonl", lambda path: path.symlink_to(path))


def _faults_of_text(chance: random.Random) -> Iterator[MalformedFile]:
    """Plain text of language modelling, a document a line."""
    task = "language modelling"
    lines = [row["text"].encode() for row in _rows(task, chance)]
    for name, line in {
        "no UTF-8": b"abc \xff",
        "UTF-8 cut off": b"abc \xe2\x82",
        "Latin-1": "\u00e9t\u00e9".encode("latin-1"),
        "an overlong form": b"\xc0\xaf",
        "a surrogate": b"\xed\xa0\x80",
    }.items():
        row = chance.randrange(1, ROWS)
        yield _case(task, f"{name} in line {row + 1}", "train.txt", b"\n".join([*lines[:row], line, *lines[row:]]),
                    rf":{row + 1}\b")  # fmt: skip
        whole = b"\n".join([*lines[:row], line, *lines[row:]])
        yield _case(
            task, f"{name} in line {row + 1}, compressed", "train.txt.xz", lzma.compress(whole), rf":{row + 1}\b"
        )
    for number in (1, 3, 7):
        blank = [*lines[:5], *[b""] * number, *lines[5:]]
        yield _case(task, f"{number} empty lines", "train.txt", b"\n".join(blank), skipped=number)
        rows = [*_rows(task, chance), *[{"id": 0, "text": ""}] * number]
        yield _case(task, f"{number} empty texts", "train.jsonl", _json_lines(rows), skipped=number)


def _faults_of_parallel_files(chance: random.Random) -> Iterator[MalformedFile]:
    rows = _rows("translation", chance)
    source, target = [row["source"] for row in rows], [row["target"] for row in rows]

    def case(
        name: str,
        one: list[Any],
        other: list[Any],
        place: str | None = None,
        skipped: int | None = None,
        at: str = "a.de",
    ) -> MalformedFile:
        def write(folder: Path) -> None:
            for file, lines in (("a.en", one), ("a.de", other)):
                data = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
                (folder / file).write_bytes(data)

        def data(folder: Path) -> Any:
            corpus = ParallelFiles({"train": ["a.en", "a.de"]}, data_dir=str(folder))
            sides = Sides(empty="skip" if skipped else "error")
            return TranslationData(corpus, Bytes(), sides, cache_dir=str(folder / "cache"))

        return MalformedFile(f"translation: {name}", at, write, data, place, skipped)

    for extra in (1, 2, 10):
        yield case(f"{extra} lines more in the source", [*source, *["x"] * extra], target, f"has {ROWS + extra} lines")
        yield case(f"{extra} lines more in the target", source, [*target, *["x"] * extra], f"has {ROWS + extra}:")
    for row in (1, 9, 23):
        gap = [*target[:row], "", *target[row + 1 :]]
        spaces = [*source[:row], "   ", *source[row + 1 :]]
        yield case(f"an empty target in line {row + 1}", source, gap, rf"line {row + 1}\b")
        yield case(f"spaces for a source in line {row + 1}", spaces, target, rf"line {row + 1}\b", at="a.en")
        yield case(f"an empty target in line {row + 1}, skipped", source, gap, skipped=1)
        wrong = [*target[:row], b"\xff", *target[row + 1 :]]
        yield case(f"no UTF-8 in line {row + 1}", source, wrong, rf":{row + 1}\b")
    yield case("nothing in the target", source, [], "has 0:")
    yield case("only empty pairs", [""] * 9, [""] * 9)


def _faults_of_conversations(chance: random.Random) -> Iterator[MalformedFile]:
    good = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * ROWS
    for name, messages in {
        "no list": "a",
        "empty": [],
        "text for a message": ["a"],
        "no role": [{"content": "a"}],
        "no content": [{"role": "assistant"}],
        "an empty answer": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}],
        "a number for content": [{"role": "assistant", "content": 3}],
        "nobody answers": [{"role": "user", "content": "a"}],
        "null": None,
    }.items():
        row = chance.randrange(1, ROWS)
        data = _json_lines([*good[:row], {"messages": messages}, *good[row + 1 :]])

        def make(folder: Path) -> Any:
            rows = FileRows({"train": "train.jsonl", "validation": "train.jsonl"}, data_dir=str(folder))
            return SupervisedData(rows, Bytes(), Messages(), cache_dir=str(folder / "cache"))

        yield MalformedFile(f"conversations: {name} in row {row + 1}", "train.jsonl",
                            lambda folder, data=data: _write(folder / "train.jsonl", data), make, rf":{row + 1}\b")  # fmt: skip


def _case(
    task: str, name: str, file: str, data: bytes, place: str | None = None, skipped: int | None = None
) -> MalformedFile:
    return MalformedFile(f"{task}: {file}: {name}", file, lambda folder: _write(folder / file, data),
                         _module(task, file), place, skipped)  # fmt: skip


def _place(task: str, name: str, file: str, make: Callable[[Path], object]) -> MalformedFile:
    return MalformedFile(f"{task}: {name}", file, lambda folder: make(folder / file) and None, _module(task, file))


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


def cleared(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
