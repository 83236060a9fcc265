"""A LanceDB table that is opened, made where it is missing, and read or written with our errors around it.

Knows LanceDB's connections, versions and queries; must not know what the rows mean beyond their record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InputError, StoreError
from .failures import failures, import_lancedb, is_conflict
from .filters import one_of
from .record import Record
from .rows import schema

if TYPE_CHECKING:
    import pyarrow as pa

Result = TypeVar("Result")

_ATTEMPTS = 10
"""How often a write is tried where other writers commit first; LanceDB tries as often by itself inside each."""
_LISTED = 1000
"""So many values are asked for by name; more are found by reading the column."""
_CLOUD_READ = timedelta(seconds=5)
"""How old a view of a table on object storage may be: asking for its latest version is a request."""


def is_remote(uri: str) -> bool:
    """Tell whether a URI names object storage.

    Example:
        >>> is_remote("s3://bucket/folder"), is_remote("./index")
        (True, False)
    """
    return "://" in uri and not uri.startswith("file://")


def list_tables(uri: str | Path, *, storage_options: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of the tables in a folder or a place on object storage, and make nothing.

    Args:
        uri: A folder, which need not be there, or `s3://…`, `gs://…`, `az://…`.
        storage_options: LanceDB's options of the object storage.

    Raises:
        InputError: It is a file.
        MissingDependencyError: LanceDB is not installed.
        StoreError: It cannot be read.

    Example:
        >>> list_tables("nowhere")
        []
    """
    place = str(uri)
    if not is_remote(place) and not Path(place).exists():
        return []
    with failures(place, "opening"):
        return sorted(_names(_connect(place, storage_options)))


def _connect(uri: str, storage_options: Mapping[str, str] | None) -> Any:
    lancedb = import_lancedb()
    if not is_remote(uri) and Path(uri).is_file():
        raise InputError(f"{uri} is a file; give a folder, or the URI of object storage (s3://, gs://, az://)")
    interval = _CLOUD_READ if is_remote(uri) else timedelta(0)
    options = dict(storage_options) if storage_options else None
    return lancedb.connect(uri, read_consistency_interval=interval, storage_options=options)


class Handle:
    """One table.

    Args:
        uri: A folder, or a URI of object storage.
        name: The table's name.
        record: What a new table shall say of itself; None where the table must be there.
        storage_options: LanceDB's options of the object storage.
    """

    def __init__(
        self, uri: str, name: str, *, record: Record | None, storage_options: Mapping[str, str] | None
    ) -> None:
        self.uri, self.name, self.label = uri, name, f"the table {name!r} in {uri}"
        self.options = dict(storage_options) if storage_options else None
        self.table = self._open() if record is None else self._open_or_make(record)
        self.record = Record.read(self.table.schema.metadata, table=self.label)

    def _open(self) -> Any:
        if not is_remote(self.uri) and not Path(self.uri).is_dir():
            raise StoreError(f"there is no folder {self.uri}, so no table {self.name!r} in it")
        with failures(self.label, "opening"):
            connection = _connect(self.uri, self.options)
            names = _names(connection)
            if self.name not in names:
                there = f"it has: {', '.join(sorted(names))}" if names else "it has none"
                raise StoreError(f"{self.uri} has no table {self.name!r}; {there}")
            return connection.open_table(self.name)

    def _open_or_make(self, record: Record) -> Any:
        with failures(self.label, "opening"):
            connection = _connect(self.uri, self.options)
            if self.name in _names(connection):
                return connection.open_table(self.name)
        with failures(self.label, "making"):
            # With exist_ok a second process that makes it at the same moment gets the first one's.
            return connection.create_table(self.name, schema=schema(record), exist_ok=True)

    @property
    def place(self) -> str:
        """Where the table itself lies, for Lance."""
        return str(self.table.uri)

    def drop(self) -> None:
        """Delete the table, whatever it holds."""
        with failures(self.label, "deleting"):
            _connect(self.uri, self.options).drop_table(self.name)

    def snapshot(self) -> Any:
        """Open the table once more, held at its latest version however long it is read."""
        with failures(self.label, "opening"):
            table = _connect(self.uri, self.options).open_table(self.name)
            table.checkout(table.version)
            return table

    def read(self, columns: list[str], where: str | None = None, *, table: Any = None, **more: Any) -> pa.Table:
        """Read columns of the rows that hold a chunk.

        Args:
            columns: Names of columns.
            where: SQL.
            table: A snapshot in place of the latest version.
            **more: `limit`, `offset`, `with_row_id`.
        """
        query = (self.table if table is None else table).search().where(_present(where)).select(columns)
        for name, value in more.items():
            if value is not None:
                query = getattr(query, name)(value)
        with self.reading(where):
            return query.to_arrow()

    def named(self, column: str, values: Iterable[str], columns: list[str]) -> pa.Table:
        """Read columns of the rows whose `column` is one of some strings."""
        wanted = list(dict.fromkeys(values))
        if len(wanted) <= _LISTED:
            return self.read(columns, one_of(column, wanted))
        import pyarrow as pa
        import pyarrow.compute as pc

        chosen = list(dict.fromkeys([*columns, column]))
        every = self.read(chosen)
        return every.filter(pc.is_in(every[column], pa.array(wanted, pa.string()))).select(columns)

    def reading(self, where: str | None = None) -> Any:
        """Say what failed while reading; a filter that LanceDB cannot parse is the caller's."""
        return _Reading(self, where)

    def merge(self, rows: pa.Table) -> Any:
        """Insert rows, replacing those of the same key, in one version of the table."""
        merging = self.table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all()
        return merging.execute(rows)

    def writing(self, write: Callable[[], Result]) -> Result:
        """Write, again where another writer committed first.

        Raises:
            StoreError: It failed, or others were faster each time.
        """
        for attempt in range(_ATTEMPTS):
            with failures(self.label, "writing"):
                try:
                    self.table.checkout_latest()
                    return write()
                except (RuntimeError, OSError, ValueError) as error:
                    if not is_conflict(error) or attempt == _ATTEMPTS - 1:
                        raise
        raise AssertionError  # the last attempt returns or raises


class _Reading:
    """The context of a read."""

    def __init__(self, handle: Handle, where: str | None) -> None:
        self._handle, self._where = handle, where
        self._failures = failures(handle.label, "reading")

    def __enter__(self) -> None:
        self._failures.__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool | None:
        if isinstance(error, (RuntimeError, ValueError)) and self._where is not None:
            self._check_filter()
        return self._failures.__exit__(kind, error, trace)

    def _check_filter(self) -> None:
        try:
            self._handle.table.search().where(self._where).explain_plan()
        except (RuntimeError, ValueError) as error:
            columns = ", ".join(["id", "document", "position", "text", "metadata"])
            raise InputError(
                f"the filter {self._where} is no SQL that LanceDB understands: {str(error).splitlines()[0][:300]}. "
                f"Columns are {columns}; a value of metadata is json_get_string(metadata, 'key')"
            ) from error


def _present(where: str | None) -> str:
    return f"id IS NOT NULL AND {where}" if where else "id IS NOT NULL"


def _names(connection: Any) -> list[str]:
    names: list[str] = []
    token = None
    while True:
        page = connection.list_tables(page_token=token)
        names += page.tables
        token = page.page_token
        if not token:
            return names
