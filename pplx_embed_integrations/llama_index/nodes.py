"""LlamaIndex nodes to documents of chunk texts in reading order.

Knows nodes, their relationships, offsets and metadata; must not know models or vectors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from llama_index.core.schema import BaseNode, MetadataMode, NodeRelationship, RelatedNodeInfo

from ..documents import group
from ..errors import InputTypeError

__all__ = [
    "NEIGHBOURS",
    "NodeDocument",
    "batches",
    "check_nodes",
    "document_keys",
    "drop_headers",
    "drop_links",
    "flat_texts",
    "give_sources",
    "in_reading_order",
    "keep_order",
    "link",
    "linked_elsewhere",
    "linked_ids",
    "read_documents",
    "set_embeddings",
    "source_ids",
]

_LONGEST_NAME = 200

#: The relationships that put nodes in an order.
NEIGHBOURS = (NodeRelationship.PREVIOUS, NodeRelationship.NEXT)


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
    def name(self) -> str:
        """What a message calls the document: its id, or that of its first node where it has none."""
        name = self.nodes[0].ref_doc_id or self.nodes[0].node_id
        return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}..."

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
    """Gather nodes into documents, in reading order.

    A document is what has one `ref_doc_id`, or, where that is missing, what PREVIOUS, NEXT and PARENT links hold
    together. The order is that of `start_char_idx` where the offsets of all chunks can be offsets in one text, else the
    input's. Where PREVIOUS and NEXT links contradict it they win.

    Args:
        nodes: In any order; a node without `ref_doc_id` and links is a document of its own.
        mode: Which metadata is embedded with each chunk.
        header_once: Take metadata that all chunks of a document share out of them and put it before the first.

    Returns:
        The documents that have a text, in the order of their first node.
    """
    documents = []
    for indices in group(document_keys(nodes)):
        members = in_reading_order([nodes[index] for index in indices])
        document = _header_once(members, mode) if header_once else NodeDocument(*flat_texts(members, mode))
        if document.nodes:
            documents.append(document)
    return documents


def document_keys(nodes: Sequence[BaseNode]) -> list[str]:
    """Return for each node the key of its document: `ref_doc_id`, or that of the first node it is linked with.

    A PARENT stands for the document of its children. The key of a node that is linked with none is its own id.
    """
    above: dict[str, str] = {}

    def root(name: str) -> str:
        while name in above:
            above[name] = above.get(above[name], above[name])
            name = above[name]
        return name

    homeless = {node.node_id for node in nodes if not node.ref_doc_id}
    for node in nodes:
        for linked in linked_ids(node, *NEIGHBOURS, NodeRelationship.PARENT):
            if not node.ref_doc_id or linked in homeless:
                one, other = root(linked), root(node.node_id)
                if one != other:
                    above[one] = other
    keys: dict[str, str] = {}
    for node in sorted(nodes, key=lambda node: not node.ref_doc_id):
        keys.setdefault(root(node.node_id), node.ref_doc_id or node.node_id)
    return [node.ref_doc_id or keys[root(node.node_id)] for node in nodes]


def linked_ids(node: BaseNode, *kinds: NodeRelationship) -> list[str]:
    """Return the ids that a node names in relationships of the given kinds."""
    found = (node.relationships.get(kind) for kind in kinds)
    return [link.node_id for link in found if isinstance(link, RelatedNodeInfo)]


def linked_elsewhere(nodes: Sequence[BaseNode]) -> list[str]:
    """Return the neighbours of nodes without a document that are not among the nodes."""
    given = {node.node_id for node in nodes}
    return sorted({each for node in nodes if not node.ref_doc_id for each in linked_ids(node, *NEIGHBOURS)} - given)


def give_sources(nodes: Sequence[BaseNode], indexed: Sequence[BaseNode]) -> None:
    """Give linked nodes without a document one by name, so that any store can be asked for the whole of it.

    Args:
        nodes: The nodes, which are changed.
        indexed: Their neighbours that are indexed already.
    """
    given = {node.node_id for node in nodes}
    keys = document_keys([*nodes, *indexed])
    shared = Counter(keys)
    parents = {
        key: parent
        for node, key in zip(nodes, keys, strict=False)
        for parent in linked_ids(node, NodeRelationship.PARENT)
        if key in given
    }
    for node, key in zip(nodes, keys, strict=False):
        if not node.ref_doc_id and (shared[key] > 1 or key in parents or linked_ids(node, *NEIGHBOURS)):
            source = RelatedNodeInfo(node_id=parents.get(key, key))
            node.relationships = {**node.relationships, NodeRelationship.SOURCE: source}


def drop_links(node: BaseNode, gone: Collection[str]) -> None:
    """Forget neighbours that are gone."""
    node.relationships = {
        kind: info
        for kind, info in node.relationships.items()
        if kind not in NEIGHBOURS or not isinstance(info, RelatedNodeInfo) or info.node_id not in gone
    }


def source_ids(nodes: Iterable[BaseNode] | None) -> set[str]:
    """Return the documents that nodes name."""
    return {node.ref_doc_id for node in nodes or [] if node.ref_doc_id}


def in_reading_order(nodes: list[BaseNode]) -> list[BaseNode]:
    """Return the nodes of one document in reading order; see `read_documents`."""
    return _follow_links(_by_offsets(nodes) or nodes)


def keep_order(nodes: Sequence[BaseNode]) -> None:
    """Write the order of a document's nodes, where nothing tells it, into links that stay with them in any store."""
    if _by_offsets(list(nodes)):
        return
    for before, after in pairwise(nodes):
        if not linked_ids(before, NodeRelationship.NEXT) and not linked_ids(after, NodeRelationship.PREVIOUS):
            link(before, after)


def link(before: BaseNode, after: BaseNode) -> None:
    """Make two nodes neighbours."""
    before.relationships = {**before.relationships, NodeRelationship.NEXT: after.as_related_node_info()}
    after.relationships = {**after.relationships, NodeRelationship.PREVIOUS: before.as_related_node_info()}


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


def _start(node: BaseNode) -> int:
    start: int = getattr(node, "start_char_idx")  # noqa: B009  (only text nodes have it)
    return start


def _by_offsets(nodes: list[BaseNode]) -> list[BaseNode] | None:
    """Return the nodes by `start_char_idx`, or None where these are not offsets in one text."""
    starts = {getattr(node, "start_char_idx", None) for node in nodes}
    if None in starts or len(starts) < len(nodes):
        return None
    ordered = sorted(nodes, key=_start)
    for before, after in pairwise(ordered):
        text, next_text = (node.get_content(metadata_mode=MetadataMode.NONE) for node in (before, after))
        # A splitter looks for a chunk's text, and may find it in an earlier chunk or count from another section.
        shared = text[_start(after) - _start(before) :]
        if not (next_text.startswith(shared) or shared.startswith(next_text)):
            return None
    return ordered


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
