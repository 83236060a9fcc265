"""One run of `index_documents`: batches of whole documents, their ids, what is refused, and the bar.

Knows documents of chunks, hashes and what a batch needs; must not know record managers' or stores' methods.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import chain, islice
from typing import Any

from langchain_core.documents import Document
from langchain_core.indexing import IndexingResult

from ..documents import KEY_PREFIX, stable_form
from ..errors import InputError, InputTypeError, PplxEmbedError, StoreError, warn
from ..inputs import check_positive
from .adding import resolve_embeddings
from .contextual import OnMiss, Scope
from .embeddings import PplxEmbeddings
from .grouping import CHUNK_KEY, DOCUMENT_KEY, GroupBy, Key, check_documents, stamp_of
from .reading import owners
from .splitting import ChunkedDocument, Gathering

__all__ = ["Batch", "Run", "group_of"]

_AT_ONCE = 1000
_NAMED = 20
_LONGEST_KEY = 500


def group_of(form: str) -> str:
    """Return what a record manager knows a document by: its key, unless a database could not index that.

    Args:
        form: The key as a string that no other is written as.

    Example:
        >>> group_of("a.md"), len(group_of("a" * 5000))
        ('a.md', 68)
    """
    if len(form) <= _LONGEST_KEY and "\0" not in form:
        return form
    return KEY_PREFIX + hashlib.sha256(form.encode()).hexdigest()


class Batch:
    """Whole documents that are embedded, stored and recorded together.

    Attributes:
        documents: The documents, their chunks stamped.
        known: What the record manager says of `ids()`.
        new: The documents that are not recorded yet, or not wholly.
    """

    def __init__(self) -> None:
        self.documents: list[ChunkedDocument] = []
        self.known: list[Sequence[bool]] = []
        self._names: dict[str, list[str]] = {}
        self.new: list[ChunkedDocument] = []
        self._recorded: set[str] = set()
        self._scope: Scope | None = None

    def append(self, document: ChunkedDocument, ids: list[str]) -> None:
        """Take in a document with the ids of its chunks."""
        self.documents.append(document)
        self._names[document.key.form] = ids

    def __len__(self) -> int:
        return sum(map(len, self._names.values()))

    def ids(self) -> Iterator[list[str]]:
        """Yield the ids of all chunks in parts of a size that any database takes."""
        flat = [each for document in self.documents for each in self._names[document.key.form]]
        for start in range(0, len(flat), _AT_ONCE):
            yield flat[start : start + _AT_ONCE]

    def id_of(self, chunk: Document) -> str:
        """Return the id of a chunk."""
        return self._names[chunk.metadata[DOCUMENT_KEY]][int(chunk.metadata[CHUNK_KEY])]

    def groups(self) -> list[str]:
        """Return what the record manager knows the documents by."""
        return [group_of(document.key.form) for document in self.documents]

    def chunks(self) -> list[Document]:
        """Return all chunks, document after document.

        In the order of their keys, which is the same in every process: a database that is given the same rows in
        different orders by two of them has to break a deadlock.
        """
        ordered = sorted(self.documents, key=lambda document: document.key.form)
        return [chunk for document in ordered for chunk in document.chunks]

    def singly(self) -> Iterator[Batch]:
        """Yield a batch for each of the documents."""
        for document in self.documents:
            one = Batch()
            one.append(document, self._names[document.key.form])
            one.new = [document for each in self.new if each is document]
            one._recorded = self._recorded
            yield one

    def unrecorded(self) -> list[str]:
        """Return the ids of those chunks that were not recorded before."""
        return [each for ids in self.ids() for each in ids if each not in self._recorded]

    def choose(self, *, force: bool) -> list[ChunkedDocument]:
        """Tell which documents are not recorded yet, or not wholly."""
        flat = [each for part in self.known for each in part]
        self._recorded = {each for each, old in zip(chain.from_iterable(self.ids()), flat, strict=True) if old}
        known = iter(flat)
        there = [all(list(islice(known, len(document.chunks)))) for document in self.documents]
        self.new = [document for document, old in zip(self.documents, there, strict=True) if force or not old]
        return self.new

    def drop(self, document: ChunkedDocument) -> None:
        """Leave a document out."""
        self.documents = [each for each in self.documents if each is not document]
        self.new = [each for each in self.new if each is not document]

    @contextmanager
    def block(self, embeddings: PplxEmbeddings, on_miss: OnMiss) -> Iterator[Scope]:
        """Open the block in which the new documents' chunks get their context."""
        with embeddings._scope(self.new, on_miss=on_miss) as self._scope:
            yield self._scope

    def embed(self, embeddings: PplxEmbeddings) -> None:
        """Embed all new documents together, before the store asks for the first chunk."""
        if self._scope is not None and self.new:
            self._scope.matrices(set(range(len(self.new))), embeddings._encode_quietly)

    async def aembed(self, embeddings: PplxEmbeddings) -> None:
        """`embed` without blocking the event loop."""
        if self._scope is not None and self.new:
            await self._scope.amatrices(set(range(len(self.new))), embeddings._aencode_quietly)


class Run:
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
        InputTypeError: The store is none, or does not embed with PplxEmbeddings.
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
        self.deleted = 0
        self.cleans = cleanup is not None
        self._size = check_positive("batch_size", batch_size)
        self._cleanup = cleanup
        self._content = tuple(content_metadata)
        self._stamped = group_by is None and splitter is None
        self._whole = splitter is not None
        self._gathering = Gathering(documents, splitter=splitter, group_by=group_by, indexing=True)
        self._shaping = f"{getattr(record_manager, 'namespace', '')!r}\n{self.embeddings.vector_identity()}\n"
        self._shaping += f"{self.embeddings.normalize}\n"
        self._store = store
        self._results: list[IndexingResult] = []
        self._versions: dict[str, str] = {}
        self._refused: dict[str, None] = {}  # ordered, each once
        self._again = 0
        self._counted = 0
        self._warned = False
        self._bar: Any = None

    def batches(self) -> Iterator[Batch]:
        """Read documents and yield them in batches; when reading fails, first what has been read wholly."""
        batch, failure = Batch(), None
        try:
            for key, parts, places in self._gathering.groups():
                self._take(batch, key, parts, places)
                if len(batch) >= self._size:
                    yield batch
                    batch = Batch()
        except Exception as error:  # noqa: BLE001  (raised below, when what is there has been stored)
            failure = error
        if batch.documents:
            yield batch
        if failure is not None:
            raise failure
        self._gathering.end()

    def _take(self, batch: Batch, key: Key, parts: list[Document], places: list[int]) -> None:
        try:
            arrival = self._gathering.arrange(key, parts)
            [document] = self._gathering.read(key, parts, places, arrival)
            self._check_complete(document)
            version = document.version
            ids = self._ids(document, version)
        except InputError as error:
            self._refused[str(error)] = None
            return
        if key.form in self._versions:
            self._returned(document, same=self._versions[key.form] == version)
            return
        self._versions[key.form] = version
        document.key = Key(key.form)
        document.chunks = document.stamped()
        document.places = []
        batch.append(document, ids)

    def _returned(self, document: ChunkedDocument, *, same: bool) -> None:
        name = document.key.shown
        if same:
            warn(f"document {name} comes more than once with the same texts, and is stored once; pass it once")
            self._again += len(document.chunks)
            return
        self._refused[
            f"document {name} comes back after other documents, with other texts: only what came first is stored. Let "
            "its parts follow each other, pass list(documents), or use a key that tells the documents apart"
        ] = None

    def _check_complete(self, document: ChunkedDocument) -> None:
        stamp = stamp_of(document.chunks[0]) if self._stamped else None
        if stamp is not None and stamp.chunks is not None and stamp.chunks != len(document.chunks):
            raise InputError(
                f"{len(document.chunks)} of the {stamp.chunks} chunks of document {document.key.shown} are here, and "
                "would replace all of it; pass all of them together (in a list they may be shuffled)"
            )

    def _ids(self, document: ChunkedDocument, version: str) -> list[str]:
        """Name chunks by all that decides their vectors: half of a SHA-256 as a UUID, which every store takes."""
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

    def drop_unfit(self, batch: Batch, force: bool) -> None:
        """Leave out, and keep in mind, the new documents that cannot be embedded."""
        documents = batch.choose(force=force)
        if not documents or not (wrong := self._unfit(documents)):
            return
        for document in documents:
            error = self._unfit([document]) if len(documents) > 1 else wrong
            if error:
                self._refused[error] = None
                batch.drop(document)

    def _unfit(self, documents: list[ChunkedDocument]) -> str:
        names = [f"document {document.key.shown}" for document in documents]
        try:
            self.embeddings.biencoder.check_documents([document.texts for document in documents], names=names)
        except InputError as error:
            return str(error)
        return ""

    def owned(self, batch: Batch) -> list[str]:
        """Return the new documents that a metadata key names and that say whose they are."""
        if self._gathering.doubts.named is None:
            return []
        return [group_of(d.key.form) for d in batch.new if owners(d.chunks).keys() - {self._gathering.doubts.named}]

    def drop_foreign(self, batch: Batch, stored: list[Document]) -> None:
        """Leave out, and keep in mind, documents whose name is that of somebody else's document in the store."""
        there: dict[str, list[Document]] = {}
        for chunk in stored:
            there.setdefault(str(chunk.metadata.get(DOCUMENT_KEY)), []).append(chunk)
        for document in list(batch.new):
            old, new = owners(there.get(document.key.form, [])), owners(document.chunks)
            for name in old.keys() & new.keys() - {self._gathering.doubts.named}:
                if not old[name] & new[name]:
                    key = self._gathering.doubts.named
                    self._refused[
                        f"document {document.key.shown} would replace one of another {name} ({min(old[name])}, not "
                        f"{min(new[name])}); use group_by=lambda document: (document.metadata[{key!r}], "
                        f"document.metadata[{name!r}]), or delete_documents first if it has really moved"
                    ] = None
                    batch.drop(document)
                    break

    @contextmanager
    def block(self, batch: Batch, on_miss: OnMiss) -> Iterator[None]:
        """Open the block for a batch, and see whether the store asked for its chunks."""
        self._warn_of_names()
        done = len(self._results)
        with batch.block(self.embeddings, on_miss) as scope:
            yield
            added = sum(result["num_added"] + result["num_updated"] for result in self._results[done:])
            if added and not scope.asked:
                warn(
                    f"{type(self._store).__name__} embedded these documents with something else than the "
                    "PplxEmbeddings given, so without context; build the store with this very object",
                )

    def _warn_of_names(self) -> None:
        if self._gathering.keyed_by_content and self._cleanup in ("incremental", "scoped_full") and not self._warned:
            self._warned = True
            warn(
                "whole documents without an id are named by their text: an edited one is a new document, and its old "
                "version stays in the store. Give each a Document.id, name them with group_by= (a metadata key such as "
                'the file\'s path), or pass all of them with cleanup="full"'
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
            names = ", ".join(document.key.shown for document in batch.documents[:_NAMED])
            reason = (str(error).splitlines() or [""])[0][:300]
            raise StoreError(
                f"{type(self._store).__name__} or its record manager did not take {names}: "
                f"{type(error).__name__}: {reason}; the old version is still there"
            ) from error

    @contextmanager
    def retrying(self, batch: Batch, error: StoreError) -> Iterator[Callable[[], AbstractContextManager[None]]]:
        """Try the documents of a batch one by one, and keep in mind which are refused.

        Raises:
            StoreError: All of them are refused, so the store is to blame.
        """
        refused = []

        @contextmanager
        def attempt() -> Iterator[None]:
            try:
                yield
            except StoreError as failure:
                refused.append(str(failure))

        yield attempt
        if len(refused) == len(batch.documents):
            raise error
        self._refused |= dict.fromkeys(refused)

    def add(self, result: IndexingResult) -> None:
        """Count what LangChain has done."""
        self._results.append(result)

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Draw one bar for the whole run, if the embeddings are to show progress."""
        from tqdm.auto import tqdm

        with tqdm(desc="Indexing", unit=" documents", disable=not self.embeddings.show_progress) as self._bar:
            yield

    def done(self, batch: Batch) -> None:
        """Count a batch that is stored, recorded and cleaned up after."""
        self._counted += len(batch.chunks())
        self._bar.total = self._gathering.total
        self._bar.set_postfix(chunks=self._counted, refresh=False)
        self._bar.update(len(batch.documents))

    def end(self) -> None:
        """Raise what was refused on the way.

        Raises:
            InputError: Some documents were refused.
        """
        if self._refused:
            more = f"; and {len(self._refused) - _NAMED} more" if len(self._refused) > _NAMED else ""
            kept = ', and cleanup="full" has removed nothing' if self._cleanup == "full" else ""
            raise InputError(
                f"{len(self._refused)} document{'s were' if len(self._refused) > 1 else ' was'} not indexed, while all "
                f"others are{kept}: "
                f"{'; '.join(list(self._refused)[:_NAMED])}{more}"
            )

    def result(self) -> IndexingResult:
        """Return what has been done in all."""
        results = self._results
        return IndexingResult(
            num_added=sum(result["num_added"] for result in results),
            num_updated=sum(result["num_updated"] for result in results),
            num_skipped=sum(result["num_skipped"] for result in results) + self._again,
            num_deleted=self.deleted,
        )
