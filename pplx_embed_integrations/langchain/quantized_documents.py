"""Documents into a table of codes: whole ones compared, embedded in context and replaced; texts by themselves.

Knows LangChain's adding calls and how PplxEmbeddings gives codes; must not know searching or LanceDB.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.indexing import IndexingResult
from langchain_core.vectorstores import VectorStore
from typing_extensions import Unpack

from ..embedder import Form
from ..errors import InputError, InputTypeError
from ..flow import Flow, arun, in_worker, run
from ..inputs import check_texts
from ..stores import ChunkTable, Comparison, StoredDocument
from ..vectors import Vectors
from .contextual import is_open
from .embeddings import PplxEmbeddings
from .grouping import GroupBy, check_documents, stamp_of
from .quantized_intake import TableIntake, flat_chunks

_BATCH = 1000


class QuantizedDocuments(VectorStore):
    """The writing half of `QuantizedVectorStore`."""

    _embeddings: PplxEmbeddings
    _table: ChunkTable

    def index(
        self,
        documents: Any,
        *,
        splitter: Any = None,
        group_by: GroupBy | None = None,
        full: bool = False,
        batch_size: int = _BATCH,
    ) -> IndexingResult:
        """Bring the store up to date with documents, embedding only those that changed.

        A document is its chunks' texts, ids and metadata. One that is there unchanged is skipped; of one whose
        metadata alone changed the vectors are kept; any other is embedded, and then replaced as a whole, in one version
        of the table: nobody ever sees a part of it. What is done stays done if the run is killed.

        Args:
            documents: A loader, a list or an iterator of whole documents, with a splitter; or of chunks, with
                `group_by` or the stamp of `split_documents`. Parts of one document must follow each other, except in a
                list.
            splitter: Splits whole documents; see `split_documents`. Without `group_by` a document is named by its `id`.
            group_by: What makes several of them one document, and names it: a metadata key, a function of the document,
                or one key per document.
            full: Whether these are all documents, and any other in the store is to be deleted at the end.
            batch_size: Chunks that are embedded and stored together, in whole documents.

        Returns:
            How many chunks were added, updated (metadata alone), skipped and deleted.

        Raises:
            InputError: Which chunks belong together is not known, or some documents cannot be embedded: these are
                named, their old versions stay, and all others are done.
            NotContextualError: The document side was not trained for this.
            StoreError: The table cannot be written.
        """
        return run(self._index(documents, splitter, group_by, batch_size, full=full))

    async def aindex(
        self,
        documents: Any,
        *,
        splitter: Any = None,
        group_by: GroupBy | None = None,
        full: bool = False,
        batch_size: int = _BATCH,
    ) -> IndexingResult:
        """`index` without blocking the event loop."""
        if isinstance(documents, AsyncIterable):
            documents = [document async for document in documents]
        return await arun(self._index(documents, splitter, group_by, batch_size, full=full))

    def _index(
        self, documents: Any, splitter: Any, group_by: GroupBy | None, batch_size: int, *, full: bool
    ) -> Flow[IndexingResult]:
        intake: TableIntake = yield in_worker(self._intake, documents, splitter, group_by, None, batch_size)
        yield from self._replace(intake, show_progress=False)
        if full and not intake.keys:
            raise InputError("full=True with no document would delete everything; if that is meant, call delete()")
        if not full:
            intake.warn_of_names(instead="or name them with group_by=, a metadata key such as the file's path")
            return intake.result()
        intake.counts["num_deleted"] += yield in_worker(self._delete_others, intake.keys)
        return intake.result()

    def _delete_others(self, keys: set[str]) -> int:
        return self._table.delete(documents=[key for key in self._table.documents() if key not in keys])

    def _replace(self, intake: TableIntake, **form: Unpack[Form]) -> Flow[None]:
        """Embed and store what has changed, batch by batch."""
        batches = intake.batches()
        while (batch := (yield in_worker(next, batches, None))) is not None:
            compared = yield in_worker(self._fit, intake, batch)
            texts = [document.texts for document in compared.to_embed]
            yield in_worker(self._store, compared, (yield from self._embeddings._together(texts, **form)))
            intake.count(compared)
        intake.end(done="stored, while all others are")

    def _intake(
        self, documents: Any, splitter: Any, group_by: GroupBy | None, ids: Any, batch_size: int
    ) -> TableIntake:
        self._embeddings._check_contextual()
        self._table.check_writable()
        given = documents.lazy_load() if hasattr(documents, "lazy_load") else documents
        given = given if ids is None else check_documents(given)
        return TableIntake(given, splitter=splitter, group_by=group_by, ids=ids, size=batch_size)

    def _fit(self, intake: TableIntake, batch: list[StoredDocument]) -> Comparison:
        """Compare a batch with the table, leaving out documents that cannot be embedded."""
        compared = self._table.compare(batch)
        check = self._embeddings.biencoder.check_documents
        for documents in (compared.new, compared.changed):
            documents[:] = [each for each in documents if intake.fits(each.key, each.texts, check)]
        return compared

    def _store(self, compared: Comparison, matrices: Sequence[Vectors]) -> None:
        kept = self._table.vectors_of(compared.renamed) if compared.renamed else []
        self._table.replace([*compared.to_embed, *compared.renamed], [*matrices, *kept])

    def add_whole_documents(
        self, documents: Any, *, splitter: Any = None, group_by: GroupBy | None = None, ids: Any = None
    ) -> list[str]:
        """Store documents, each chunk in the context of its document, in place of what the store has of them.

        Args:
            documents: Whole documents with a splitter, or chunks; see `index`.
            splitter: Splits whole documents.
            group_by: What makes several of them one document.
            ids: Ids of ready chunks, one each.

        Returns:
            The chunks' ids.
        """
        return run(self._add_whole(documents, splitter, group_by, ids))

    async def aadd_whole_documents(
        self, documents: Any, *, splitter: Any = None, group_by: GroupBy | None = None, ids: Any = None
    ) -> list[str]:
        """`add_whole_documents` without blocking the event loop."""
        return await arun(self._add_whole(documents, splitter, group_by, ids))

    def _add_whole(self, documents: Any, splitter: Any, group_by: GroupBy | None, ids: Any) -> Flow[list[str]]:
        intake: TableIntake = yield in_worker(self._intake, documents, splitter, group_by, ids, _BATCH)
        yield from self._replace(intake)
        return intake.ids

    def add_documents(self, documents: list[Document], **options: Any) -> list[str]:
        """Add documents: whole ones with `splitter=`, chunks with `group_by=` or a stamp, else each by itself.

        Args:
            documents: LangChain documents.
            **options: `splitter`, `group_by`, and `ids` of chunks.

        Returns:
            The chunks' ids.
        """
        found = check_documents(documents)
        if self._are_whole(found, options):
            return self.add_whole_documents(found, **options)
        return self.add_texts(*_flat(found), ids=_ids(found, options))

    async def aadd_documents(self, documents: list[Document], **options: Any) -> list[str]:
        """`add_documents` without blocking the event loop."""
        found = check_documents(documents)
        if self._are_whole(found, options):
            return await self.aadd_whole_documents(found, **options)
        return await self.aadd_texts(*_flat(found), ids=_ids(found, options))

    def _are_whole(self, documents: list[Document], options: dict[str, Any]) -> bool:
        """Tell whether documents go in as whole documents; refuse options that do not exist."""
        options.pop("batch_size", None)  # which LangChain's `index` passes to every store
        refuse({name: value for name, value in options.items() if name not in ("splitter", "group_by", "ids")})
        if options.get("splitter") is not None or options.get("group_by") is not None:
            return True
        # Within a documents(...) block the chunks have their context, and the block counts them.
        return any(map(stamp_of, documents)) and not is_open(self._embeddings)

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, each a document of its own, in place of those of the same ids.

        Args:
            texts: The texts.
            metadatas: One dictionary for each.
            ids: One id for each, by default new ones.
            **kwargs: Refused.

        Returns:
            The ids.
        """
        return run(self._add_texts(texts, metadatas, ids, kwargs))

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """`add_texts` without blocking the event loop."""
        return await arun(self._add_texts(texts, metadatas, ids, kwargs))

    def _add_texts(
        self, texts: Iterable[str], metadatas: Any, ids: list[str] | None, options: dict[str, Any]
    ) -> Flow[list[str]]:
        refuse(options)
        chunks = flat_chunks(list(texts), metadatas, ids)
        self._table.check_writable()
        if chunks:
            rows = yield from self._embeddings._rows(check_texts([chunk.text for chunk in chunks]))
            yield in_worker(self._table.upsert, chunks, rows)
        return [chunk.id for chunk in chunks]


def refuse(options: dict[str, Any]) -> None:
    """Refuse options that do not exist.

    Raises:
        InputTypeError: There are such.
    """
    if options:
        raise InputTypeError(
            f"QuantizedVectorStore has no option {next(iter(options))!r} here; it takes splitter=, group_by= and ids="
        )


def _flat(documents: list[Document]) -> tuple[list[str], list[dict[str, Any]]]:
    return [document.page_content for document in documents], [document.metadata for document in documents]


def _ids(documents: list[Document], options: dict[str, Any]) -> Any:
    ids = options.get("ids")
    return ids if ids is not None else [document.id for document in documents]
