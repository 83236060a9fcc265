"""What is wrong with the nodes of a call though they can be embedded: read twice, in part, or without a document.

Knows nodes, their texts and links; must not know models, vectors or stores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

from llama_index.core.schema import BaseNode, Document, IndexNode, MetadataMode, NodeRelationship

from ..overlaps import find_overlap
from .nodes import NEIGHBOURS, NodeDocument, linked_ids

FLAT = (
    "texts came without their documents, and each was embedded as a document of its own, without context. To index "
    "chunks in the context of their document write contextual_index(documents, embed_model=embed_model), open a saved "
    "index with load_contextual_index(storage_context, embed_model=embed_model), or pass "
    "transformations=[SentenceSplitter(chunk_overlap=0), embed_model] as well as embed_model. If each text is a whole "
    "document all is well; warnings.simplefilter('ignore', ContextWarning) silences this"
)

_SAMPLE = 32
"""How many chunks of a document are looked for in the others: a document read twice shows in any of them."""


def findings(nodes: Sequence[BaseNode], documents: Sequence[NodeDocument]) -> list[str]:
    """Return what is to be said about the nodes of one call, at most one sentence of each kind.

    Args:
        nodes: All nodes of the call.
        documents: What they were read as.
    """
    kinds = (_overlap(documents), _part(nodes), _levels(documents), _twice(documents), _alone(nodes))
    return [message for message in kinds if message]


def _texts(document: NodeDocument) -> list[str]:
    return [node.get_content(metadata_mode=MetadataMode.NONE) for node in document.nodes]


def _overlap(documents: Sequence[NodeDocument]) -> str | None:
    # Without offsets: LlamaIndex looks a chunk's text up to find them, and errs where lines repeat.
    found = find_overlap([_texts(document) for document in documents])
    if found is None:
        return None
    return (
        f"chunk {found.chunk} of document {documents[found.document].name!r} repeats {found.characters} characters of "
        "the chunk before it. In a contextual document the model reads the neighbours anyway, and repeated text is "
        "read twice: split without overlap, for example SentenceSplitter(chunk_overlap=0)"
    )


def _part(nodes: Sequence[BaseNode]) -> str | None:
    known = {node.node_id for node in nodes}
    for node in nodes:
        if not known.issuperset(linked_ids(node, *NEIGHBOURS)):
            return (
                f"a neighbour of a chunk of document {node.ref_doc_id or node.node_id!r} is not among the nodes given, "
                "so the document was embedded in part, and the part elsewhere has not read this one. Give whole "
                "documents: index.insert(document), pipeline.run(documents=[...]), or all of a document's nodes in "
                "one call"
            )
    return None


def _levels(documents: Sequence[NodeDocument]) -> str | None:
    for document in documents:
        if _related(document) or _contained(_texts(document)):
            return (
                f"document {document.name!r} holds its text at several levels, chunks beside the larger chunks they "
                "were cut from: it is read as one text that says everything several times. Embed one level, for "
                "example get_leaf_nodes(nodes), and keep the others in the docstore"
            )
    return None


def _related(document: NodeDocument) -> bool:
    ids = {node.node_id for node in document.nodes}
    return any(
        not ids.isdisjoint(linked_ids(node, NodeRelationship.PARENT))
        or (isinstance(node, IndexNode) and node.index_id != node.node_id and node.index_id in ids)
        for node in document.nodes
    )


def _contained(texts: list[str]) -> bool:
    once = [text for text, count in Counter(texts).items() if count == 1]  # others repeat without a reason
    longest = sorted(once, key=len, reverse=True)
    sample = once[:: max(1, len(once) // _SAMPLE)]
    inside = [text for text in sample if _stands_in(text, longest)]
    return 3 * sum(map(len, inside)) >= sum(map(len, sample)) and len(inside) > 1


def _stands_in(text: str, longest: list[str]) -> bool:
    return any(text in other for other in takewhile(lambda other: len(other) > len(text), longest))


def _twice(documents: Sequence[NodeDocument]) -> str | None:
    for document in documents:
        starts = [getattr(node, "start_char_idx", None) for node in document.nodes]
        seen = Counter(zip(_texts(document), starts, strict=True))
        if len(seen) > 1 and None not in starts and min(seen.values()) > 1:
            return (
                f"document {document.name!r} was given {min(seen.values())} times in one call, and is read as one text "
                "that says everything as often. Give each document once"
            )
    return None


def _alone(nodes: Sequence[BaseNode]) -> str | None:
    named = {linked for node in nodes for linked in linked_ids(node, *NEIGHBOURS)}
    pointers = Counter(node.index_id for node in nodes if isinstance(node, IndexNode))
    alone = [
        node
        for node in nodes
        if not (node.ref_doc_id or node.relationships or node.node_id in named)
        and not isinstance(node, Document)
        and not (isinstance(node, IndexNode) and pointers[node.index_id] == 1)
        and node.get_content(metadata_mode=MetadataMode.NONE)
    ]
    if not alone:
        return None
    return (
        f"{len(alone)} of {len(nodes)} nodes name no document, and each was embedded as a document of its own, without "
        "context. To say which belong together give them a source, node.relationships[NodeRelationship.SOURCE] = "
        "RelatedNodeInfo(node_id='the document'), or link them by PREVIOUS and NEXT"
    )
