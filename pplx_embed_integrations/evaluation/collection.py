"""A judged collection: documents, queries, and which document or which passage of it answers which query.

Knows what belongs together and how to take less of it; must not know files, models, vectors or metrics.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice

from .results import Passage


@dataclass(frozen=True)
class Collection:
    """Documents, queries and judgements, by id.

    Attributes:
        documents: Text by document id.
        queries: Text by query id; each has at least one relevant document.
        judgements: For each query id, the grade by document id; 0 is not relevant.
        empty: Ids of documents that have no text and were left out.
        notes: What was not as it should be in the files, counted, in sentences for a reader.
        passages: For each query id that is judged so, the grade by passage. A passage whose document is not in
            `documents` cannot be found.
        chunks: For each document its chunks in reading order, where the collection brings them; None where a splitter
            makes them.

    Example:
        >>> collection = Collection({"d1": "a", "d2": "b"}, {"q1": "a?"}, {"q1": {"d1": 2, "d2": 0}})
        >>> collection.relevant
        {'d1'}
    """

    documents: dict[str, str]
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]
    empty: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    passages: dict[str, dict[Passage, int]] = field(default_factory=dict)
    chunks: dict[str, tuple[Passage, ...]] | None = None

    @property
    def relevant(self) -> set[str]:
        """Ids of the documents that answer any query."""
        return {document for grades in self.judgements.values() for document, grade in grades.items() if grade > 0}

    def first(self, queries: int) -> Collection:
        """Return a smaller collection: the first queries, the documents judged for them, and as many others again.

        Args:
            queries: How many.

        Returns:
            A collection on which figures come quickly and are higher than on the whole one.

        Example:
            >>> collection = Collection({"d1": "a", "d2": "b", "d3": "c"}, {"q1": "a?"}, {"q1": {"d1": 2}})
            >>> list(collection.first(1).documents)
            ['d1', 'd2']
        """
        chosen = dict(islice(self.queries.items(), queries))
        judgements = {query: self.judgements[query] for query in chosen}
        judged = {document for grades in judgements.values() for document in grades}
        others = (document for document in self.documents if document not in judged)
        kept = judged.union(islice(others, len(judged)))
        documents = {document: text for document, text in self.documents.items() if document in kept}
        chunks = None if self.chunks is None else {document: self.chunks[document] for document in documents}
        passages = {query: self.passages[query] for query in chosen if query in self.passages}
        return replace(
            self, documents=documents, queries=chosen, judgements=judgements, passages=passages, chunks=chunks
        )
