"""LlamaIndex nodes to documents of chunk texts in reading order, and what is missing or read twice in them.

Knows nodes, their relationships, offsets and metadata; must not know models or vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llama_index.core.schema import BaseNode, MetadataMode, NodeRelationship, RelatedNodeInfo

from ..documents import find_overlap, group
from ..errors import InputTypeError

__all__ = [
    "NodeDocument",
    "batches",
    "check_nodes",
    "drop_headers",
    "flat_texts",
    "missing_neighbour",
    "overlap_message",
    "read_documents",
    "set_embeddings",
]


@dataclass(frozen=True)
class NodeDocument:
    """The chunks of one document, in reading order.

    Attributes:
        nodes: The nodes that have a text.
        texts: What is embedded for each of them.
        header: Metadata that all of them share, read once before them; empty if each text carries its own.
    """

    nodes: list[BaseNode]
    texts: list[str]
    header: str = ""

    @property
    def chunks(self) -> list[str]:
        """What the encoder reads: the header, if any, as a chunk of its own, then the texts."""
        return [self.header, *self.texts] if self.header else self.texts


def check_nodes(nodes: object) -> list[BaseNode]:
    """Return `nodes` as a list of nodes.

    Raises:
        InputTypeError: It is no sequence, or an element is no LlamaIndex node.
    """
    if isinstance(nodes, BaseNode) or not isinstance(nodes, Sequence) or isinstance(nodes, (str, bytes)):
        raise InputTypeError(f"a list of LlamaIndex nodes is wanted, not {type(nodes).__name__}")
    for position, node in enumerate(nodes):
        if not isinstance(node, BaseNode):
            hint = "; texts go through get_text_embedding_batch" if isinstance(node, str) else ""
            raise InputTypeError(f"node {position} must be a LlamaIndex node, not {type(node).__name__}{hint}")
    return list(nodes)


def flat_texts(nodes: Sequence[BaseNode], mode: MetadataMode) -> tuple[list[BaseNode], list[str]]:
    """Return the nodes that have something to embed, and what that is.

    A node without text is left out, as `VectorStoreIndex` does: a blank page must not stop the other thousand.
    """
    pairs = [(node, text) for node in nodes if (text := node.get_content(metadata_mode=mode))]
    return [node for node, _ in pairs], [text for _, text in pairs]


def read_documents(nodes: Sequence[BaseNode], mode: MetadataMode, *, header_once: bool) -> list[NodeDocument]:
    """Gather nodes into documents by `ref_doc_id`, in reading order.

    The order is that of `start_char_idx` where every chunk has one and no two are equal, else the input's. Where
    PREVIOUS and NEXT links contradict it they win: with two splitters in a row the offsets count from the section,
    not from the document.

    Args:
        nodes: In any order; a node without `ref_doc_id` is a document of its own.
        mode: Which metadata is embedded with each chunk.
        header_once: Take metadata that all chunks of a document share out of them and put it before the first.

    Returns:
        The documents that have a text, in the order of their first node.
    """
    keys = [node.ref_doc_id or ("node", position) for position, node in enumerate(nodes)]
    offsets = [getattr(node, "start_char_idx", None) for node in nodes]
    documents = []
    for indices in group(keys, offsets):
        members = _follow_links([nodes[index] for index in indices])
        document = _header_once(members, mode) if header_once else NodeDocument(*flat_texts(members, mode))
        if document.nodes:
            documents.append(document)
    return documents


def batches(documents: Sequence[NodeDocument], size: int) -> Iterator[list[NodeDocument]]:
    """Cut documents into runs of at least `size` chunks, never inside a document."""
    batch: list[NodeDocument] = []
    chunks = 0
    for document in documents:
        batch.append(document)
        chunks += len(document.texts)
        if chunks >= size:
            yield batch
            batch, chunks = [], 0
    if batch:
        yield batch


def drop_headers(documents: Sequence[NodeDocument], vectors: Sequence[list[list[float]]]) -> list[list[float]]:
    """Return the vectors of the texts alone, flat, in the order of the documents and of the texts in them."""
    rows = zip(documents, vectors, strict=True)
    return [vector for document, matrix in rows for vector in (matrix[1:] if document.header else matrix)]


def set_embeddings(nodes: Sequence[BaseNode], embeddings: Sequence[list[float]]) -> None:
    """Give each node its vector."""
    for node, embedding in zip(nodes, embeddings, strict=True):
        node.embedding = embedding


def missing_neighbour(nodes: Sequence[BaseNode]) -> str | None:
    """Return the id of a document of which a chunk is missing: one that PREVIOUS or NEXT names is not in `nodes`."""
    known = {node.node_id for node in nodes}
    for node in nodes:
        if any(link.node_id not in known for link in _links(node)):
            return node.ref_doc_id or node.node_id
    return None


def overlap_message(documents: Sequence[NodeDocument]) -> str | None:
    """Say where neighbouring chunks repeat each other's text, and which setting stops it; `None` if none do."""
    texts = [[node.get_content(metadata_mode=MetadataMode.NONE) for node in doc.nodes] for doc in documents]
    starts = [[getattr(node, "start_char_idx", None) for node in doc.nodes] for doc in documents]
    found = find_overlap(texts, starts)
    if found is None:
        return None
    document = documents[found.document].nodes[0]
    return (
        f"chunk {found.chunk} of document {document.ref_doc_id or document.node_id!r} repeats {found.characters} "
        "characters of the chunk before it. In a contextual document the model reads the neighbours anyway, and "
        "repeated text is read twice: split without overlap, for example SentenceSplitter(chunk_overlap=0)"
    )


def _links(node: BaseNode) -> list[RelatedNodeInfo]:
    found = (node.relationships.get(kind) for kind in (NodeRelationship.PREVIOUS, NodeRelationship.NEXT))
    return [link for link in found if isinstance(link, RelatedNodeInfo)]


def _follow_links(nodes: list[BaseNode]) -> list[BaseNode]:
    place = {node.node_id: index for index, node in enumerate(nodes)}
    following: dict[int, int] = {}
    for index, node in enumerate(nodes):
        before, after = (node.relationships.get(kind) for kind in (NodeRelationship.PREVIOUS, NodeRelationship.NEXT))
        if isinstance(before, RelatedNodeInfo) and before.node_id in place:
            following[place[before.node_id]] = index
        if isinstance(after, RelatedNodeInfo) and after.node_id in place:
            following[index] = place[after.node_id]
    if all(before < after for before, after in following.items()):
        return nodes
    order: dict[int, None] = {}
    for head in sorted(set(range(len(nodes))) - set(following.values())):
        step: int | None = head
        while step is not None and step not in order:
            order[step] = None
            step = following.get(step)
    # Links in a circle are no order.
    return [nodes[index] for index in order] if len(order) == len(nodes) else nodes


def _header_once(nodes: list[BaseNode], mode: MetadataMode) -> NodeDocument:
    first = nodes[0].metadata
    shared = {key for key in first if all(key in node.metadata and node.metadata[key] == first[key] for node in nodes)}
    kept: list[BaseNode] = []
    texts: list[str] = []
    for node in nodes:
        own = {key: value for key, value in node.metadata.items() if key not in shared}
        if text := node.model_copy(update={"metadata": own}).get_content(metadata_mode=mode):
            kept.append(node)
            texts.append(text)
    common = nodes[0].model_copy(update={"metadata": {key: first[key] for key in first if key in shared}})
    return NodeDocument(kept, texts, header=common.get_metadata_str(mode=mode))
