"""CSV, TSV and Parquet → rows of text."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from expressivegan.errors import DataError

SUFFIXES = (".csv", ".tsv", ".parquet")
MAX_BYTES = 1 << 28
MAX_ROWS = 5_000_000
_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class Table:
    """Rows of text under the columns' names."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    """As long as `columns`, stripped; what is missing is ""."""


def is_table(name: str) -> bool:
    """Whether a file of that name may be a table."""
    return name.lower().endswith(SUFFIXES)


def columns_of(data: bytes, name: str) -> tuple[str, ...]:
    """Names of the columns, without reading the rows.

    Raises:
        DataError: no table, or Parquet without pyarrow.
    """
    if name.lower().endswith(".parquet"):
        return tuple(str(c) for c in _parquet(data, name).schema_arrow.names)
    head = data[:_HEADER_BYTES]
    if len(head) < len(data):
        head = head[: head.rfind(b"\n") + 1]
    return next(_lines(head, name), ())


def parse(data: bytes, name: str) -> Table:
    """Reads a whole table; nothing in it is interpreted, so that "NA" and "007" stay what they are.

    Args:
        data: the file's bytes.
        name: of the file; its end tells the format.

    Raises:
        DataError: no table, or Parquet without pyarrow.
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"{name} is larger than {MAX_BYTES >> 20} MiB; split it, and the images with it")
    parquet = name.lower().endswith(".parquet")
    lines = _parquet_lines(data, name) if parquet else _lines(data, name)
    header = next(lines, ())
    width = len(header)
    rows: list[tuple[str, ...]] = []
    for row in lines:
        if len(rows) == MAX_ROWS:
            raise DataError(f"{name} has more than {MAX_ROWS} rows; split it, and the images with it")
        if any(row):
            rows.append((*row[:width], *("",) * (width - len(row))))
    return Table(header, rows)


def _lines(data: bytes, name: str) -> Iterator[tuple[str, ...]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")  # what spreadsheets write on Windows
    first = text.partition("\n")[0]
    delimiter = max("\t;,", key=first.count) if first.strip() else ","
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            yield tuple(cell.strip() for cell in row)
    except csv.Error as error:
        raise DataError(f"{name} is no readable table ({error}); write it anew as CSV") from error


def _parquet_lines(data: bytes, name: str) -> Iterator[tuple[str, ...]]:
    file = _parquet(data, name)
    yield tuple(str(c) for c in file.schema_arrow.names)
    total = 0
    try:
        for batch in file.iter_batches(batch_size=4096):  # small, since a dictionary unfolds to any size
            total += batch.nbytes
            if total > MAX_BYTES:
                break
            columns = [["" if v is None else str(v).strip() for v in c.to_pylist()] for c in batch.columns]
            yield from zip(*columns, strict=True)
    except Exception as error:  # decoders of hostile bytes raise anything
        raise DataError(f"{name} is no readable Parquet table ({error}); write it anew") from error
    if total > MAX_BYTES:
        raise DataError(f"{name} unfolds to more than {MAX_BYTES >> 20} MiB; split it, and the images with it")


def _parquet(data: bytes, name: str) -> Any:
    try:
        from pyarrow import BufferReader
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DataError(f"{name} needs pyarrow to be read; pip install 'expressivegan[parquet]', or give CSV") from None
    try:
        file = ParquetFile(BufferReader(data))
    except Exception as error:  # decoders of hostile bytes raise anything
        raise DataError(f"{name} is no readable Parquet table ({error}); write it anew") from error
    return file
