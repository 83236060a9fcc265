"""One run of `index_documents`: what it reads and refuses, the ids of chunks, and what has been done.

Knows documents of chunks, hashes and what a batch needs; must not know record managers' or stores' methods.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.documents import Document
from langchain_core.indexing import RecordManager
from langchain_core.vectorstores import VectorStore

from ..documents import DOCUMENT_KEY, stable_form
from ..errors import InputError, InputTypeError, PplxEmbedError, StoreError, warn
from .contextual import OnMiss, Scope
from .deleting import group_of
from .embeddings import PplxEmbeddings
from .grouping import GroupBy, shown
from .intake import NAMED, Intake
from .reading import owners
from .resolving import resolve_embeddings
from .splitting import ChunkedDocument


@dataclass(frozen=True)
class Plan:
    """How documents are to be indexed: the arguments of `index_documents`."""

    splitter: Any
    group_by: GroupBy | None
    embeddings: PplxEmbeddings | None
    on_miss: OnMiss
    cleanup: str | None
    batch_size: int
    content_metadata: Sequence[str]
    options: dict[str, Any]


@dataclass
class NamedDocument(ChunkedDocument):
    """A document, its chunks stamped and with ids.

    Attributes:
        forced: Whether it is stored again though it is there.
        unrecorded: Ids of those chunks that the record manager does not know.
    """

    forced: bool = False
    unrecorded: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """The ids of all chunks."""
        return [str(chunk.id) for chunk in self.chunks]

    @property
    def to_store(self) -> list[str]:
        """The ids of those chunks that the store is going to be given; none if the document is recorded."""
        return self.ids if self.forced else self.unrecorded


class Run(Intake[NamedDocument]):
    """What one call of `index_documents` reads, has done and has refused.

    Args:
        documents: A list, or an iterator.
        records: Remembers what is in the store.
        store: The vector store.
        plan: How the documents are to be indexed.

    Attributes:
        started: The record manager's time at the beginning.

    Raises:
        InputError: An option is out of range, or the documents cannot be grouped.
        InputTypeError: The store is a retriever, or does not embed with PplxEmbeddings.
    """

    def __init__(self, documents: Any, records: RecordManager, store: VectorStore, plan: Plan) -> None:
        if hasattr(store, "vectorstore"):
            raise InputTypeError(
                f"{type(store).__name__} is a retriever; pass its .vectorstore, with splitter= if it splits by itself"
            )
        if plan.cleanup not in ("incremental", "full", "scoped_full", None):
            raise InputError(f'cleanup={plan.cleanup!r} is unknown; use "incremental", "full", "scoped_full" or None')
        if isinstance(plan.content_metadata, str):
            raise InputTypeError(f"content_metadata is a bare str; put it in a list: [{plan.content_metadata!r}]")
        for name in ("key_encoder", "source_id_key"):
            if name in plan.options:
                raise InputError(f"{name}= is not an option here: a document is named by its key; use group_by=")
        self.embeddings = resolve_embeddings(store, plan.embeddings)
        self.embeddings._check_contextual()
        super().__init__(documents, splitter=plan.splitter, group_by=plan.group_by, size=plan.batch_size)
        self.records, self.store, self.plan = records, store, plan
        self.started = 0.0
        self._content = tuple(plan.content_metadata)
        self._shaping = f"{getattr(records, 'namespace', '')!r}\n{self.embeddings.vector_identity()}\n"
        self._shaping += f"{self.embeddings.normalize}\n"

    def take(self, document: ChunkedDocument) -> NamedDocument:
        """Stamp a document's chunks, and derive ids from all that decides the vectors."""
        values = [[chunk.metadata.get(name) for name in self._content] for chunk in document.chunks]
        try:
            content = stable_form(values) if self._content else ""
        except InputTypeError as error:
            raise InputTypeError(
                f"content_metadata {self._content} of document {shown(document.key)} cannot be compared: {error}"
            ) from None
        identity = hashlib.sha256(f"{self._shaping}{document.key!r}\n{document.version}\n{content}".encode()).digest()
        chunks = document.stamped()
        for number, chunk in enumerate(chunks):  # half of a SHA-256 as a UUID, which every store takes
            chunk.id = str(uuid.UUID(bytes=hashlib.sha256(identity + str(number).encode()).digest()[:16]))
        return NamedDocument(document.key, chunks, forced=bool(self.plan.options.get("force_update")))

    def warn_of_loss(self) -> None:
        """Warn once that the store has lost documents, so that they are stored again."""
        self._gathering.doubts.once(
            "loss",
            f"the record manager remembers documents of which {type(self.store).__name__} holds nothing: they are "
            "embedded and stored again. If that is another store, give it a record manager of its own",
        )

    def fitting(self, batch: list[NamedDocument]) -> list[NamedDocument]:
        """Refuse new documents that cannot be embedded, and return the others."""
        check = self.embeddings.biencoder.check_documents
        return [each for each in batch if not each.to_store or self.fits(each.key, each.texts, check)]

    def owned(self, batch: list[NamedDocument]) -> list[str]:
        """Return the groups of new documents that are named by a metadata key and say whose they are."""
        named = self._gathering.doubts.named
        new = [each for each in batch if each.to_store] if named else []
        return [group_of(each.key) for each in new if owners(each.chunks).keys() - {named}]

    def without_foreign(self, batch: list[NamedDocument], stored: list[Document]) -> list[NamedDocument]:
        """Refuse documents that would replace another owner's document of the same name, and return the others."""
        key, kept = self._gathering.doubts.named, []
        there: dict[str, list[Document]] = {}
        for chunk in stored:
            there.setdefault(str(chunk.metadata.get(DOCUMENT_KEY)), []).append(chunk)
        for document in batch:
            old, new = owners(there.get(document.key, [])), owners(document.chunks)
            name = next((name for name in sorted(old.keys() & new.keys() - {key}) if not old[name] & new[name]), None)
            if name is None:
                kept.append(document)
                continue
            self.refuse(
                f"document {shown(document.key)} would replace one of another {name} ({min(old[name])}, not "
                f"{min(new[name])}); use group_by=lambda document: (document.metadata[{key!r}], "
                f"document.metadata[{name!r}]), or delete_documents first if it has really moved"
            )
        return kept

    @contextmanager
    def block(self, new: list[NamedDocument]) -> Iterator[Scope]:
        """Open the block in which new documents get their context, and see whether the store asked for it."""
        if self.plan.cleanup in ("incremental", "scoped_full"):
            self.warn_of_names(
                instead="name them with group_by= (a metadata key such as the file's path), or pass all of them with "
                'cleanup="full"'
            )
        stored = self.counts["num_added"] + self.counts["num_updated"]
        with self.embeddings._scope(new, on_miss=self.plan.on_miss) as scope:
            yield scope
            if self.counts["num_added"] + self.counts["num_updated"] > stored and not scope.asked:
                warn(
                    f"{type(self.store).__name__} embedded these documents with something else than the "
                    "PplxEmbeddings given, so without context; build the store with this very object",
                )

    @contextmanager
    def storing(self, batch: list[NamedDocument]) -> Iterator[None]:
        """Name the documents that are being stored, if that fails.

        Raises:
            StoreError: The store or the record manager has raised something.
        """
        try:
            yield
        except PplxEmbedError:
            raise
        except Exception as error:
            names = ", ".join(shown(document.key) for document in batch[:NAMED])
            reason = (str(error).splitlines() or [""])[0][:300]
            raise StoreError(
                f"{type(self.store).__name__} or its record manager did not take {names}: "
                f"{type(error).__name__}: {reason}; the old version is still there"
            ) from error
