"""Reading local data files row by row, so that a mistake in one is named by file and row."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

from lit_transformer.data.corpora import Document
from lit_transformer.errors import EnvironmentFault, UserError

OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
FORMATS = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}


T = TypeVar("T")


class Row(NamedTuple):
    """One row of a data set.

    Args:
        where: What error messages call it: ``file:line``, or ``file, row 17``.
        values: Its values by field name.
    """

    where: str
    values: Mapping[str, Any]

    def value(self, field: str) -> Any:
        """The value of a field.

        Raises:
            UserError: There is no such field, or it is null.
        """
        if field not in self.values:
            there = ", ".join(map(str, self.values)) or "none"
            raise UserError(f"{self.where}: no field {field!r}; the fields there are: {there}")
        value = self.values[field]
        if value is None:
            raise UserError(f"{self.where}: field {field!r} is empty (null), must be text")
        return value

    def text(self, field: str) -> str:
        """The value of a field that holds text, which may be empty.

        Raises:
            UserError: There is no such field, or it holds something else.
        """
        text = self.value(field)
        if not isinstance(text, str):
            raise UserError(f"{self.where}: field {field!r} is of type {type(text).__name__}, must be text")
        try:
            text.encode()
        except UnicodeEncodeError as error:  # JSON may escape half a surrogate pair
            raise UserError(
                f"{self.where}: field {field!r} holds a lone surrogate at character {error.start}"
            ) from None
        return text


def format_of(path: Path) -> str:
    """The name that ``datasets`` gives to the format of a file, from its suffix; plain text where it says nothing."""
    inner = path.with_suffix("") if path.suffix in OPENERS else path
    return FORMATS.get(inner.suffix.lower(), "text")


def open_binary(path: Path) -> IO[bytes]:
    """Opens a file, decompressed according to its suffix."""
    return OPENERS.get(path.suffix, open)(path, "rb")  # type: ignore[no-any-return]


def guarded(path: Path, content: Iterator[T]) -> Iterator[T]:
    """What is read of a file, with its faults (missing, not readable, broken compression) as one line."""
    try:
        yield from content
    except FileNotFoundError:
        raise UserError(f"{path}: no such data file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name the files in it, for example {path}/*.txt") from None
    except PermissionError:
        raise EnvironmentFault(f"{path}: cannot be read: permission denied") from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: broken compressed file: {error}") from None
    except OSError as error:  # bz2 reports broken data so, and so does a failing disk
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def decode(path: Path, content: bytes, offset: int = 0, line: int = 1) -> str:
    """UTF-8 text with LF line ends; ``offset`` and ``line`` are where the content starts in the file."""
    try:
        return content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        row = line + content.count(10, 0, error.start)  # 10: LF
        raise UserError(
            f"{path}:{row}: not UTF-8 at byte {offset + error.start} (0x{content[error.start]:02x}); "
            "convert the file, for example with iconv -t utf-8"
        ) from None


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file without their ends, counted from 1."""
    offset = 0
    with open_binary(path) as file:
        for number, line in enumerate(file, 1):
            yield number, decode(path, line, offset, number).removesuffix("\n")
            offset += len(line)


def read_text(path: Path, sample_by: str) -> Iterator[Document]:
    """Plain text: a document a file, a line or a paragraph (separated by blank lines)."""
    if sample_by == "document":
        with open_binary(path) as file:
            yield Document(str(path), decode(path, file.read()))
    elif sample_by == "line":
        for number, line in numbered_lines(path):
            yield Document(f"{path}:{number}", line)
    else:
        paragraph: list[str] = []
        for number, line in numbered_lines(path):
            if line.strip():
                paragraph.append(line)
            elif paragraph:
                yield Document(f"{path}:{number - len(paragraph)}", "\n".join(paragraph))
                paragraph = []
        if paragraph:
            yield Document(f"{path}:{number + 1 - len(paragraph)}", "\n".join(paragraph))


def json_rows(path: Path) -> Iterator[Row]:
    """JSON lines, or one JSON array of objects."""
    with open_binary(path) as file:
        is_array = file.read(64).lstrip()[:1] == b"["
    if is_array:
        with open_binary(path) as file:
            values = parse_json(str(path), decode(path, file.read()))
        if not isinstance(values, list):
            raise UserError(f"{path}: must be JSON lines or one JSON array of objects")
        for number, value in enumerate(values, 1):
            yield _object(f"{path}, row {number}", value)
        return
    for number, line in numbered_lines(path):
        if line.strip():
            yield _object(f"{path}:{number}", parse_json(f"{path}:{number}", line))


def _object(where: str, value: object) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{where}: a row must be a JSON object with named fields, got {type(value).__name__}")
    return Row(where, value)


def read_json(path: Path, field: str) -> Iterator[Document]:
    """The texts of a field of JSON rows."""
    return (Document(row.where, row.text(field)) for row in json_rows(path))


def parse_json(name: str, text: str) -> object:
    """The value of a JSON text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise UserError(f"{name}: not valid JSON: {error.msg} at {place}") from None
    except RecursionError:
        raise UserError(f"{name}: not valid JSON: nested too deeply") from None


def csv_rows(path: Path, needed: Sequence[str] = ()) -> Iterator[Row]:
    """Comma-separated (``.tsv``: tab-separated) values with a header line.

    Args:
        path: The file.
        needed: Columns that must be there, even where no row asks for them.
    """
    csv.field_size_limit(2**31 - 1)
    inner = path.with_suffix("") if path.suffix in OPENERS else path
    with open_binary(path) as file:
        content = decode(path, file.read()).removeprefix("\ufeff")
    rows = csv.reader(io.StringIO(content, newline=""), delimiter="\t" if inner.suffix == ".tsv" else ",", strict=True)
    try:
        header = next(rows, [])
        twice = [field for field in header if header.count(field) > 1]
        if twice:
            raise UserError(f"{path}:{rows.line_num}: the header names {twice[0]!r} twice")
        for row in rows:
            if row and len(row) != len(header):
                raise UserError(f"{path}:{rows.line_num}: {len(row)} columns, the header has {len(header)}")
            if row:
                yield Row(f"{path}:{rows.line_num}", dict(zip(header, row, strict=True)))
    except csv.Error as error:
        raise UserError(f"{path}:{rows.line_num}: not valid CSV: {error}") from None
    for field in needed:
        if field not in header:
            raise UserError(f"{path}: no field {field!r}; the fields there are: {', '.join(header) or 'none'}")


def read_csv(path: Path, field: str) -> Iterator[Document]:
    """The texts of a column."""
    return (Document(row.where, row.text(field)) for row in csv_rows(path, [field]))


def datasets_rows(builder: str, path: Path, cache_dir: str | None) -> Iterator[Row]:
    """Any other format that ``datasets`` has a builder for: Parquet, Arrow, ..."""
    from lit_transformer.data.hub import load

    if not path.is_file():
        raise UserError(f"{path}: no such data file")
    dataset = load(str(path), builder, data_files=[str(path)], split="train", streaming=True, cache_dir=cache_dir)
    try:
        for number, row in enumerate(dataset):
            yield Row(f"{path}, row {number}", row)
    except UserError:
        raise
    except Exception as error:  # the readers of the many formats raise what they like
        raise UserError(f"{path}: cannot be read as {builder}: {str(error).splitlines()[0]}") from None


def read_with_datasets(builder: str, path: Path, field: str, cache_dir: str | None) -> Iterator[Document]:
    """The texts of a field of what ``datasets`` reads."""
    return (Document(row.where, row.text(field)) for row in datasets_rows(builder, path, cache_dir))


def rows_of(path: Path, builder: str, cache_dir: str | None = None) -> Iterator[Row]:
    """The rows of a file, with its faults as one line; a line of plain text is a row with the field ``text``.

    Args:
        path: The file.
        builder: Its format, as ``format_of`` tells it.
        cache_dir: Where ``datasets`` may keep what it prepares.
    """
    if builder == "json":
        return guarded(path, json_rows(path))
    if builder == "csv":
        return guarded(path, csv_rows(path))
    if builder == "text":
        lines = numbered_lines(path)
        return guarded(path, (Row(f"{path}:{number}", {"text": line}) for number, line in lines))
    return guarded(path, datasets_rows(builder, path, cache_dir))


def files_in(pattern: str, folder: Path) -> list[Path]:
    """The files that a name or a pattern stands for, sorted."""
    path = folder / Path(pattern).expanduser()
    if not any(sign in pattern for sign in "*?["):
        return [path]
    anchor = Path(path.anchor) if path.is_absolute() else Path()
    found = sorted(found for found in anchor.glob(str(path.relative_to(anchor))) if found.is_file())
    if not found:
        raise UserError(f"{path}: no file matches")
    return found
