"""A collection's files as lines, as objects and as rows, packed or not; every error names file and line.

Knows encodings, compression, JSON and Parquet; must not know what a line means.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingDependencyError


def lines(path: Path, *, hint: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line that is not blank, of a file or of its compressed twin (`.gz`).

    Args:
        path: The file without `.gz`.
        hint: What an error says of the layout if the file is not there.

    Raises:
        InputError: It is not there, damaged, or no UTF-8 text.
    """
    packed = path.with_name(f"{path.name}.gz")
    try:
        with gzip.open(packed, "rb") if is_packed(path) else path.open("rb") as data:
            file = io.TextIOWrapper(data, encoding="utf-8-sig")
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except FileNotFoundError:
        raise InputError(f"there is no {path}; {hint}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{packed} is damaged: {error}") from error


def is_packed(path: Path) -> bool:
    """Return whether only the compressed twin of a file is there."""
    return not path.is_file() and path.with_name(f"{path.name}.gz").is_file()


def exists(path: Path) -> bool:
    """Return whether a file or its compressed twin is there."""
    return path.is_file() or is_packed(path)


def objects(path: Path, *, hint: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and object of each line of a JSON-lines file.

    Raises:
        InputError: A line is no JSON object; see `lines` for the rest.
    """
    for place, line in lines(path, hint=hint):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} line {place} is no JSON: {error}") from error
        if not isinstance(entry, dict):
            raise InputError(f"{path} line {place} is no JSON object but {type(entry).__name__}")
        yield place, entry


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and row of a Parquet file, from 1.

    Raises:
        InputError: The file is damaged.
        MissingDependencyError: `pyarrow` is not installed.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise MissingDependencyError("pyarrow", extra="store") from None
    try:
        with ParquetFile(path) as file:
            batches = (batch.to_pylist() for batch in file.iter_batches())
            yield from enumerate(chain.from_iterable(batches), 1)
    except (ArrowException, OSError) as error:
        raise InputError(f"{path} is no Parquet file that can be read: {error}") from error


def clean(text: str) -> str:
    r"""Return a text whose halves of characters (lone surrogates) are replaced, one by one.

    Example:
        >>> clean("half \ud800")
        'half �'
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def number(text: str) -> float | None:
    """Return a finite number, None if the text is none.

    Example:
        >>> number("1.0"), number("score"), number("nan")
        (1.0, None, None)
    """
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
