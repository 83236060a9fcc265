"""A Qdrant collection that remembers what it was made with: opening, recording, refusing strangers.

Knows Qdrant's client and the record kept in a collection's own metadata; must not know files, chunks or models.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, MissingDependencyError, PplxEmbedError

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient

__all__ = ["Collection", "StoreError", "check_name", "check_place", "local_path", "open_store", "store_exists"]

_KEY = "pplx_embed"
_PAGE, _STORED = 1000, 64
"""Points that are read, and written, at a time."""
_NO_NAME = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"/\\|?*\ud800-\udfff]')
_LONGEST_NAME = 200


class StoreError(PplxEmbedError, OSError):
    """The store cannot be reached, or a collection in it cannot be used.

    Example:
        >>> issubclass(StoreError, OSError)
        True
    """


def local_path(store: str) -> Path | None:
    """Return the folder that `--store` means, or None for a URL.

    Example:
        >>> local_path("http://localhost:6333") is None
        True
    """
    # Not by `resolve`, which fails where links go round in a circle.
    return None if "://" in store else Path(os.path.realpath(Path(store).expanduser()))


def check_name(collection: str) -> None:
    """Refuse a name that Qdrant could not give to a collection, or that would lead out of the store's folder.

    Raises:
        InputError: It is one.

    Example:
        >>> check_name("../notes")
        Traceback (most recent call last):
        pplx_embed_integrations.errors.InputError: --collection '../notes' is no name for a collection: ...
    """
    if (
        _NO_NAME.search(collection)
        or collection.strip() in ("", ".", "..")
        or len(collection.encode("utf-8", "replace")) > _LONGEST_NAME
    ):
        raise InputError(
            f"--collection {collection!r} is no name for a collection: it has from 1 to {_LONGEST_NAME} bytes, none of "
            r'them a control character or one of < > : " / \ | ? *'
        )


def store_exists(store: str) -> bool:
    """Tell whether `--store` is a local store that was made before, or a URL.

    Example:
        >>> store_exists("nowhere")
        False
    """
    path = local_path(store)
    return path is None or (path / "meta.json").is_file()


@contextmanager
def open_store(store: str, collection: str, *, create: bool) -> Iterator[Collection]:
    """Open a store and close it at the end.

    Args:
        store: Folder or URL.
        collection: The collection's name.
        create: Make a local store's folder if it is not there.

    Yields:
        The collection, which need not exist yet.

    Raises:
        MissingDependencyError: Qdrant's packages are not installed.
        StoreError: The store cannot be reached or is in use by another program.
    """
    try:
        import langchain_qdrant  # noqa: F401 - asked for here, to say how to install it
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise MissingDependencyError(error.name or "qdrant_client", extra="cli") from None

    path = local_path(store)
    if path is None:
        key = os.environ.get("QDRANT_API_KEY")
        try:
            client = QdrantClient(url=store, api_key=key, check_compatibility=False)
        except ValueError as error:
            raise StoreError(f"--store {store} is no URL of a Qdrant server ({error}); it begins with http") from error
    else:
        check_place(store, create=create)
        client = _open_local(path, store)
    with _failures(store):
        try:
            yield Collection(client, collection, store)
        finally:
            client.close()


def _open_local(path: Path, store: str) -> QdrantClient:
    from qdrant_client import QdrantClient

    with _failures(store):
        try:
            return QdrantClient(path=str(path))
        except (OSError, sqlite3.OperationalError):
            raise  # not to be read or written, which says nothing about what is in it
        except (RuntimeError, MemoryError):
            raise  # in use
        except Exception as error:  # whatever the client's readers of JSON, SQLite and pickles say to damaged ones
            raise StoreError(
                f"the store {store} is damaged and cannot be opened ({type(error).__name__}: {error}); put a backup in "
                "its place, or delete the folder and index again"
            ) from error


class Collection:
    """One collection and the record in it.

    Args:
        client: An open client.
        name: The collection's name.
        store: What the user calls the store.
    """

    def __init__(self, client: QdrantClient, name: str, store: str) -> None:
        self.name = name
        self._client = client
        self._store = store

    def exists(self) -> bool:
        """Tell whether the collection is there."""
        return self._client.collection_exists(self.name)

    def record(self) -> dict[str, Any]:
        """Return what the collection says it was made with.

        Raises:
            StoreError: There is no such collection, or it was not made by `pplx-embed index`.
        """
        if not self.exists():
            names = sorted(each.name for each in self._client.get_collections().collections)
            there = f"there are: {', '.join(names)}" if names else "it holds none"
            raise StoreError(
                f"the store {self._store} has no collection {self.name!r}; {there}. "
                f"Make it with: pplx-embed index DIR --store {self._store} --collection {self.name}"
            )
        metadata = self._client.get_collection(self.name).config.metadata or {}
        if _KEY not in metadata:
            raise StoreError(
                f"the collection {self.name!r} in {self._store} was not made by `pplx-embed index`, so nothing says "
                "which model its vectors are from; use another --collection"
            )
        return dict(json.loads(metadata[_KEY]))

    def is_empty(self) -> bool:
        """Tell whether there is no chunk in it."""
        return self._client.count(self.name, exact=True).count == 0

    def create(self, *, dimension: int, record: dict[str, Any]) -> None:
        """Make the collection, with its record; one of this name, which should be empty, is replaced.

        Raises:
            StoreError: The server is too old to keep the record.
        """
        from qdrant_client.models import Distance, VectorParams

        if self.exists():
            self._client.delete_collection(self.name)
        self._client.create_collection(
            self.name,
            vectors_config=VectorParams(size=dimension, distance=Distance.COSINE),
            metadata={_KEY: json.dumps(record)},
        )
        if not self._client.get_collection(self.name).config.metadata:
            self._client.delete_collection(self.name)
            raise StoreError(f"{self._store} keeps no metadata of collections; Qdrant 1.16 or newer is needed")

    def vector_store(self, embeddings: Embeddings) -> QdrantVectorStore:
        """Return LangChain's view of the collection; its width was checked when it was made."""
        from langchain_qdrant import QdrantVectorStore

        # Its own validation would embed a text for nothing.
        return QdrantVectorStore(
            self._client,
            self.name,
            embeddings,
            validate_embeddings=False,
            validate_collection_config=False,
        )

    def add(self, chunks: list[Document], vectors: list[list[float]]) -> None:
        """Store chunks with their vectors, as LangChain's view of the collection expects them."""
        from qdrant_client.models import PointStruct

        for start in range(0, len(chunks), _STORED):
            points = [
                PointStruct(
                    id=str(chunk.id),
                    vector=vector,
                    payload={"page_content": chunk.page_content, "metadata": chunk.metadata},
                )
                for chunk, vector in zip(chunks[start : start + _STORED], vectors[start : start + _STORED], strict=True)
            ]
            self._client.upsert(self.name, points=points)

    def points(self, keys: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every chunk's id and the values of these metadata keys."""
        offset = None
        while True:
            page, offset = self._client.scroll(
                self.name, limit=_PAGE, offset=offset, with_payload=[f"metadata.{key}" for key in keys]
            )
            for point in page:
                yield str(point.id), (point.payload or {}).get("metadata") or {}
            if offset is None:
                return

    def delete(self, ids: list[str]) -> None:
        """Delete chunks."""
        for start in range(0, len(ids), _PAGE):
            self._client.delete(self.name, points_selector=list(ids[start : start + _PAGE]))


def check_place(store: str, *, create: bool) -> None:
    """Refuse a place where there is no local store, or where none can be made.

    Raises:
        StoreError: It is one.
    """
    path = local_path(store)
    if path is not None:
        _check_folder(path, given=store, create=create)


def _check_folder(path: Path, *, given: str, create: bool) -> None:
    if path.is_file():
        raise StoreError(f"--store {given} is a file; give a folder, or the URL of a Qdrant server")
    if store_exists(given):
        return
    if path.is_dir() and any(path.iterdir()):
        raise StoreError(f"--store {given} is a folder with other things in it; give a new one, or an empty one")
    if not create:
        raise StoreError(f"there is no store {given}; make one with: pplx-embed index DIR --store {given}")


@contextmanager
def _failures(store: str) -> Iterator[None]:
    """Tell what Qdrant's client cannot do in one line."""
    from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

    try:
        yield
    except UnexpectedResponse as error:
        hint = "; set QDRANT_API_KEY to its key" if error.status_code in (401, 403) else ""
        raise StoreError(f"{store} refused: {error.status_code} {error.reason_phrase}{hint}") from error
    except ResponseHandlingException as error:
        raise StoreError(f"{store} cannot be reached: {error.source}; is a Qdrant server running there?") from error
    except ApiException as error:
        raise StoreError(f"{store} failed: {error}") from error
    except sqlite3.Error as error:
        raise StoreError(
            f"the store {store} failed: {error}; look at its disk, its space and its permissions"
        ) from error
    except RuntimeError as error:
        if "already accessed" not in str(error):
            raise
        raise StoreError(
            f"the store {store} is in use by another program; wait for it to end, or use a Qdrant server"
        ) from error
