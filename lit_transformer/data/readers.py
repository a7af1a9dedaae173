"""Reading local data files row by row, so that a mistake in one is named by file and row."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

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


def format_of(path: Path) -> str:
    """The name that ``datasets`` gives to the format of a file, from its suffix; plain text where it says nothing."""
    inner = path.with_suffix("") if path.suffix in OPENERS else path
    return FORMATS.get(inner.suffix.lower(), "text")


def open_binary(path: Path) -> IO[bytes]:
    """Opens a file, decompressed according to its suffix."""
    return OPENERS.get(path.suffix, open)(path, "rb")  # type: ignore[no-any-return]


def guarded(path: Path, documents: Iterator[Document]) -> Iterator[Document]:
    """The documents of a file, with its faults (missing, not readable, broken compression) as one line."""
    try:
        yield from documents
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


def decode(path: Path, content: bytes, offset: int = 0) -> str:
    """UTF-8 text with LF line ends; ``offset`` is where the content starts in the file."""
    try:
        return content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 at byte {offset + error.start} (0x{content[error.start]:02x}); "
            "convert the file, for example with iconv -t utf-8"
        ) from None


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file without their ends, counted from 1."""
    offset = 0
    with open_binary(path) as file:
        for number, line in enumerate(file, 1):
            yield number, decode(path, line, offset).removesuffix("\n")
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


def text_field(name: str, row: object, field: str) -> Document:
    """The text of a row, or one line that says why there is none."""
    if not isinstance(row, dict):
        raise UserError(f"{name}: a row must be a JSON object with a field {field!r}, got {type(row).__name__}")
    if field not in row:
        raise UserError(f"{name}: no field {field!r}; the fields there are: {', '.join(map(str, row)) or 'none'}")
    text = row[field]
    if not isinstance(text, str):
        kind = "empty (null)" if text is None else f"of type {type(text).__name__}"
        raise UserError(f"{name}: field {field!r} is {kind}, must be text")
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON may escape half a surrogate pair
        raise UserError(f"{name}: field {field!r} holds a lone surrogate at character {error.start}") from None
    return Document(name, text)


def read_json(path: Path, field: str) -> Iterator[Document]:
    """JSON lines, or one JSON array of objects."""
    with open_binary(path) as file:
        is_array = file.read(64).lstrip()[:1] == b"["
    if is_array:
        with open_binary(path) as file:
            rows = parse_json(str(path), decode(path, file.read()))
        if not isinstance(rows, list):
            raise UserError(f"{path}: must be JSON lines or one JSON array of objects")
        for number, row in enumerate(rows, 1):
            yield text_field(f"{path}, row {number}", row, field)
        return
    for number, line in numbered_lines(path):
        if line.strip():
            yield text_field(f"{path}:{number}", parse_json(f"{path}:{number}", line), field)


def parse_json(name: str, text: str) -> object:
    """The value of a JSON text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise UserError(f"{name}: not valid JSON: {error.msg} at {place}") from None
    except RecursionError:
        raise UserError(f"{name}: not valid JSON: nested too deeply") from None


def read_csv(path: Path, field: str) -> Iterator[Document]:
    """Comma-separated (``.tsv``: tab-separated) values with a header line."""
    csv.field_size_limit(2**31 - 1)
    inner = path.with_suffix("") if path.suffix in OPENERS else path
    with open_binary(path) as file:
        content = decode(path, file.read()).removeprefix("\ufeff")
    rows = csv.reader(io.StringIO(content, newline=""), delimiter="\t" if inner.suffix == ".tsv" else ",", strict=True)
    try:
        header = next(rows, [])
        for row in rows:
            if row and len(row) != len(header):
                raise UserError(f"{path}:{rows.line_num}: {len(row)} columns, the header has {len(header)}")
            if row:
                yield text_field(f"{path}:{rows.line_num}", dict(zip(header, row, strict=True)), field)
    except csv.Error as error:
        raise UserError(f"{path}:{rows.line_num}: not valid CSV: {error}") from None
    if field not in header:
        raise UserError(f"{path}: no field {field!r}; the fields there are: {', '.join(header) or 'none'}")


def read_with_datasets(builder: str, paths: Sequence[Path], field: str, cache_dir: str | None) -> Iterator[Document]:
    """Any other format that ``datasets`` has a builder for: Parquet, Arrow, ..."""
    from lit_transformer.data.hub import load

    for path in paths:
        if not path.is_file():
            raise UserError(f"{path}: no such data file")
        dataset = load(str(path), builder, data_files=[str(path)], split="train", streaming=True, cache_dir=cache_dir)
        try:
            for number, row in enumerate(dataset):
                yield text_field(f"{path}, row {number}", row, field)
        except UserError:
            raise
        except Exception as error:  # the readers of the many formats raise what they like
            raise UserError(f"{path}: cannot be read as {builder}: {str(error).splitlines()[0]}") from None


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
