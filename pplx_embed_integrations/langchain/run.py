"""One run of `index_documents`: what it reads and refuses, the ids of chunks, what has been done, and the bar.

Knows documents of chunks, hashes and what a batch needs; must not know record managers' or stores' methods.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from langchain_core.documents import Document
from langchain_core.indexing import IndexingResult

from ..documents import DOCUMENT_KEY, stable_form
from ..errors import InputError, InputTypeError, PplxEmbedError, StoreError, warn
from .batch import Batch, NamedDocument, group_of
from .contextual import OnMiss, Scope
from .embeddings import PplxEmbeddings
from .grouping import GroupBy, Key, check_documents
from .intake import NAMED, Intake
from .reading import owners
from .resolving import resolve_embeddings
from .splitting import ChunkedDocument

__all__ = ["Run"]


class Run(Intake[NamedDocument]):
    """What one call of `index_documents` reads, has done and has refused.

    Args:
        documents: A list, or an iterator.
        record_manager: Gives the namespace.
        store: The vector store.
        splitter: Splits whole documents.
        group_by: What makes several one document.
        embeddings: What the store embeds with, if the store does not tell.
        cleanup: What is deleted.
        batch_size: Chunks in a batch, at least, unless there are no more.
        content_metadata: Metadata that belongs to the content.

    Raises:
        InputError: An option is out of range, or the documents cannot be grouped.
        InputTypeError: The store is a retriever, or does not embed with PplxEmbeddings.
    """

    def __init__(
        self,
        documents: Any,
        record_manager: Any,
        store: Any,
        splitter: Any,
        group_by: GroupBy | None,
        embeddings: PplxEmbeddings | None,
        cleanup: str | None,
        batch_size: int,
        content_metadata: Sequence[str],
    ) -> None:
        if hasattr(store, "vectorstore"):
            raise InputTypeError(
                f"{type(store).__name__} is a retriever; pass its .vectorstore, with splitter= if it splits by itself"
            )
        if cleanup not in ("incremental", "full", "scoped_full", None):
            raise InputError(f'cleanup={cleanup!r} is unknown; use "incremental", "full", "scoped_full" or None')
        if isinstance(content_metadata, str):
            raise InputTypeError(f"content_metadata is a bare str; put it in a list: [{content_metadata!r}]")
        if isinstance(documents, list):
            check_documents(documents)
        self.embeddings = resolve_embeddings(store, embeddings)
        self.embeddings._check_contextual()
        super().__init__(documents, splitter=splitter, group_by=group_by, size=batch_size)
        self.cleanup = cleanup
        self.deleted = 0
        self.results: list[IndexingResult] = []
        self._content = tuple(content_metadata)
        self._shaping = f"{getattr(record_manager, 'namespace', '')!r}\n{self.embeddings.vector_identity()}\n"
        self._shaping += f"{self.embeddings.normalize}\n"
        self._store = store
        self._counted = 0
        self._lost = False
        self._bar: Any = None

    def take(self, document: ChunkedDocument) -> NamedDocument:
        """Stamp a document's chunks, and name them."""
        ids = self._ids(document, document.version)
        document.key = Key(document.key.form)
        document.chunks = document.stamped()
        document.places = []
        return NamedDocument(document, ids)

    def _ids(self, document: ChunkedDocument, version: str) -> list[str]:
        """Derive ids from all that decides the vectors: half of a SHA-256 as a UUID, which every store takes."""
        values = [[chunk.metadata.get(name) for name in self._content] for chunk in document.chunks]
        try:
            content = stable_form(values) if self._content else ""
        except InputTypeError as error:
            raise InputTypeError(
                f"content_metadata {self._content} of document {document.key.shown} cannot be compared: {error}"
            ) from None
        identity = hashlib.sha256(f"{self._shaping}{document.key.form!r}\n{version}\n{content}".encode())
        digests = [hashlib.sha256(identity.digest() + str(number).encode()) for number in range(len(document.chunks))]
        return [str(uuid.UUID(bytes=digest.digest()[:16])) for digest in digests]

    def forget(self, batch: Batch, absent: set[str]) -> list[str]:
        """Return the recorded ids of documents that the store has lost, so that they are stored again."""
        if absent and not self._lost:
            self._lost = True
            warn(
                f"the record manager remembers documents of which {type(self._store).__name__} holds nothing: they are "
                "embedded and stored again. If that is another store, give it a record manager of its own"
            )
        return batch.forget(absent)

    def choose(self, batch: Batch, *, force: bool) -> None:
        """Find out what is new in a batch, leaving out documents that cannot be embedded."""
        batch.choose(force=force)
        documents = batch.new
        if not documents or not (wrong := self._unfit(documents)):
            return
        for document in documents:
            error = self._unfit([document]) if len(documents) > 1 else wrong
            if error:
                self.refuse(error)
                batch.drop(document)

    def _unfit(self, documents: list[ChunkedDocument]) -> str:
        names = [f"document {document.key.shown}" for document in documents]
        try:
            self.embeddings.biencoder.check_documents([document.texts for document in documents], names=names)
        except InputError as error:
            return str(error)
        return ""

    def owned(self, batch: Batch) -> list[str]:
        """Return the groups of new documents that are named by a metadata key and say whose they are."""
        named = self._gathering.doubts.named
        return [group_of(each.key.form) for each in batch.new if named and owners(each.chunks).keys() - {named}]

    def drop_foreign(self, batch: Batch, stored: list[Document]) -> None:
        """Refuse documents that would replace another owner's document of the same name."""
        key = self._gathering.doubts.named
        there: dict[str, list[Document]] = {}
        for chunk in stored:
            there.setdefault(str(chunk.metadata.get(DOCUMENT_KEY)), []).append(chunk)
        for document in list(batch.new):
            old, new = owners(there.get(document.key.form, [])), owners(document.chunks)
            name = next((name for name in sorted(old.keys() & new.keys() - {key}) if not old[name] & new[name]), None)
            if name is not None:
                self.refuse(
                    f"document {document.key.shown} would replace one of another {name} ({min(old[name])}, not "
                    f"{min(new[name])}); use group_by=lambda document: (document.metadata[{key!r}], "
                    f"document.metadata[{name!r}]), or delete_documents first if it has really moved"
                )
                batch.drop(document)

    @contextmanager
    def block(self, batch: Batch, on_miss: OnMiss) -> Iterator[Scope]:
        """Open the block in which the new documents get their context, and see whether the store asked for it."""
        if self.cleanup in ("incremental", "scoped_full"):
            self.warn_of_names(
                instead="name them with group_by= (a metadata key such as the file's path), or pass all of them with "
                'cleanup="full"'
            )
        done = len(self.results)
        with self.embeddings._scope(batch.new, on_miss=on_miss) as scope:
            yield scope
            added = sum(result["num_added"] + result["num_updated"] for result in self.results[done:])
            if added and not scope.asked:
                warn(
                    f"{type(self._store).__name__} embedded these documents with something else than the "
                    "PplxEmbeddings given, so without context; build the store with this very object",
                )

    def settings(self, batch: Batch, options: dict[str, Any]) -> dict[str, Any]:
        """Return how LangChain's `index` is to be called on a batch."""
        for name in ("key_encoder", "source_id_key"):
            if name in options:
                raise InputError(f"{name}= is not an option here: a document is named by its key; use group_by=")
        return {
            "batch_size": self._size,
            "cleanup": None,  # of a document that is longer than a batch it would delete what it has just stored
            "source_id_key": lambda chunk: group_of(chunk.metadata[DOCUMENT_KEY]),
            "key_encoder": batch.id_of,
            **options,
        }

    @contextmanager
    def storing(self, batch: Batch) -> Iterator[None]:
        """Name the documents that are being stored, if that fails.

        Raises:
            StoreError: The store or the record manager has raised something.
        """
        try:
            yield
        except PplxEmbedError:
            raise
        except Exception as error:
            names = ", ".join(document.key.shown for document in batch.documents[:NAMED])
            reason = (str(error).splitlines() or [""])[0][:300]
            raise StoreError(
                f"{type(self._store).__name__} or its record manager did not take {names}: "
                f"{type(error).__name__}: {reason}; the old version is still there"
            ) from error

    @contextmanager
    def retrying(self, batch: Batch, error: StoreError) -> Iterator[Callable[[], AbstractContextManager[None]]]:
        """Try the documents of a batch one by one, and record which are refused.

        Raises:
            StoreError: All of them are refused, so the store is to blame.
        """
        refused: list[str] = []

        @contextmanager
        def attempt() -> Iterator[None]:
            try:
                yield
            except StoreError as failure:
                refused.append(str(failure))

        yield attempt
        if len(refused) == len(batch.documents):
            raise error
        for message in refused:
            self.refuse(message)

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Draw one bar for the whole run, if the embeddings are to show progress."""
        from tqdm.auto import tqdm

        with tqdm(desc="Indexing", unit=" documents", disable=not self.embeddings.show_progress) as self._bar:
            yield

    def done(self, batch: Batch) -> None:
        """Count a batch that is stored, recorded and cleaned up after."""
        self._counted += len(batch.chunks())
        self._bar.total = self.total
        self._bar.set_postfix(chunks=self._counted, refresh=False)
        self._bar.update(len(batch.documents))

    def finish(self) -> None:
        """Raise what was refused on the way."""
        kept = ', and cleanup="full" has removed nothing' if self.cleanup == "full" else ""
        self.end(done=f"indexed, while all others are{kept}")

    def result(self) -> IndexingResult:
        """Return what has been done in all."""
        return IndexingResult(
            num_added=sum(result["num_added"] for result in self.results),
            num_updated=sum(result["num_updated"] for result in self.results),
            num_skipped=sum(result["num_skipped"] for result in self.results) + self.again,
            num_deleted=self.deleted,
        )
