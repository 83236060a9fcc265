"""LlamaIndex nodes to documents of chunk texts in reading order.

Knows nodes, their relationships, offsets and metadata; must not know models or vectors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, NodeRelationship, RelatedNodeInfo

from ..documents import are_offsets, group
from ..errors import InputTypeError

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

    def rows(self, matrix: list[list[float]]) -> list[list[float]]:
        """Return the vectors of the texts alone, of those of the chunks."""
        return matrix[1:] if self.header else matrix


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


def flat_texts(
    nodes: Sequence[BaseNode], mode: MetadataMode, *, without: Collection[str] = ()
) -> tuple[list[BaseNode], list[str]]:
    """Return the nodes that have something to embed, and what that is, without some of their metadata.

    A node without text is left out, as `VectorStoreIndex` does: a blank page must not stop the other thousand.
    """
    pairs = [(node, text) for node in nodes if (text := _without(node, without).get_content(metadata_mode=mode))]
    return [node for node, _ in pairs], [text for _, text in pairs]


def _without(node: BaseNode, keys: Collection[str]) -> BaseNode:
    if not keys:
        return node
    return node.model_copy(update={"metadata": {key: node.metadata[key] for key in node.metadata if key not in keys}})


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
    for members in _by_document(nodes):
        shared = _shared_metadata(members) if header_once else {}
        header = members[0].model_copy(update={"metadata": shared}).get_metadata_str(mode=mode) if shared else ""
        document = NodeDocument(*flat_texts(members, mode, without=shared), header)
        if document.nodes:
            documents.append(document)
    return documents


def _shared_metadata(nodes: Sequence[BaseNode]) -> dict[str, Any]:
    return {
        key: value
        for key, value in nodes[0].metadata.items()
        if all(key in node.metadata and node.metadata[key] == value for node in nodes)
    }


def _by_document(nodes: Sequence[BaseNode]) -> Iterator[list[BaseNode]]:
    """Give out the nodes of each document in reading order."""
    for indices in group(_document_keys(nodes)):
        members = [nodes[index] for index in indices]
        yield _follow_links(_by_offsets(members) or members)


def _document_keys(nodes: Sequence[BaseNode]) -> list[str]:
    """Return for each node the key of its document: its `ref_doc_id`, or a name that linked nodes share.

    That is the first `ref_doc_id` among them, else the first PARENT, else the id of the first node.
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
    parent = NodeRelationship.PARENT
    for node in sorted(nodes, key=lambda node: (not node.ref_doc_id, parent not in node.relationships)):
        name = node.ref_doc_id or next(iter(linked_ids(node, parent)), node.node_id)
        keys.setdefault(root(node.node_id), name)
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
    keys = _document_keys([*nodes, *indexed])
    shared = Counter(keys)
    for node, key in zip(nodes, keys, strict=False):
        if not node.ref_doc_id and (shared[key] > 1 or linked_ids(node, *NEIGHBOURS, NodeRelationship.PARENT)):
            node.relationships = {**node.relationships, NodeRelationship.SOURCE: RelatedNodeInfo(node_id=key)}


def drop_links(node: BaseNode, gone: Collection[str]) -> None:
    """Forget neighbours that are gone."""
    node.relationships = {
        kind: info
        for kind, info in node.relationships.items()
        if kind not in NEIGHBOURS or not isinstance(info, RelatedNodeInfo) or info.node_id not in gone
    }


def source_ids(nodes: Iterable[BaseNode]) -> set[str]:
    """Return the documents that nodes name."""
    return {node.ref_doc_id for node in nodes if node.ref_doc_id}


def keep_order(nodes: Sequence[BaseNode]) -> None:
    """Write the order of each document's nodes, where nothing tells it, into links that stay with them in any store."""
    untold = [pair for members in _by_document(nodes) if not _by_offsets(members) for pair in pairwise(members)]
    for before, after in untold:
        if not linked_ids(before, NodeRelationship.NEXT) and not linked_ids(after, NodeRelationship.PREVIOUS):
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


def set_embeddings(nodes: Sequence[BaseNode], embeddings: Sequence[list[float]]) -> None:
    """Give each node its vector."""
    for node, embedding in zip(nodes, embeddings, strict=True):
        node.embedding = embedding


def _by_offsets(nodes: list[BaseNode]) -> list[BaseNode] | None:
    """Return the nodes by `start_char_idx`, or None where these are not offsets in one text."""
    starts: list[Any] = [getattr(node, "start_char_idx", None) for node in nodes]
    # A splitter looks for a chunk's text, and may find it in an earlier chunk or count from another section.
    texts = [node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
    if None in starts or not are_offsets(texts, starts):
        return None
    return [node for _, node in sorted(zip(starts, nodes, strict=True), key=itemgetter(0))]


def _follow_links(nodes: list[BaseNode]) -> list[BaseNode]:
    place = {node.node_id: index for index, node in enumerate(nodes)}
    following: dict[int, int] = {}
    for index, node in enumerate(nodes):
        before, after = (node.relationships.get(kind) for kind in NEIGHBOURS)
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
