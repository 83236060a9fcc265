"""What is said about nodes that can be embedded but should not be so: and what is not."""

import warnings

import numpy as np
import pytest
from llama_index.core import Document, StorageContext
from llama_index.core.callbacks import CallbackManager
from llama_index.core.node_parser import HierarchicalNodeParser, SentenceSplitter
from llama_index.core.schema import IndexNode, MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode

from pplx_embed_integrations import ContextWarning
from pplx_embed_integrations.llama_index import ContextualVectorStoreIndex, PplxEmbedding, contextual_index
from pplx_embed_integrations.llama_index.findings import findings
from pplx_embed_integrations.llama_index.nodes import read_documents
from tests.llama_index.cases import FOUR, SPLITTER, assert_same_vectors, hard_documents, make_store, read_back
from tests.llama_index.test_nodes import link, node, texts

TEXT = " ".join(f"Sentence number {number} of a long text." for number in range(60))


def said(nodes):
    return findings(nodes, read_documents(nodes, MetadataMode.EMBED, header_once=False))


@pytest.mark.parametrize(
    "lines",
    [
        ["GET /health 200 from the balancer"] * 200,
        [
            line
            for n in range(60)
            for line in (f"{n} started", "ok, nothing to report here", "ok, nothing to report here")
        ],
        ["| part | 0 | 0 | not available |", "| part | 1 | 0 | not available |"] * 80,
        [f"{n % 3},{n % 2},a cell of the table,another" for n in range(200)],
        ["Total of the page: 0.00 EUR"] + [f"row {n}\nTotal of the page: 0.00 EUR" for n in range(80)],
    ],
)
def test_repeated_lines_are_no_overlap(lines, embed_model):
    for size in (50, 64, 100):
        splitter = SentenceSplitter(chunk_size=size, chunk_overlap=0, paragraph_separator="\n", separator="\n")
        nodes = splitter([Document(text="\n".join(lines))])
        assert len(nodes) > 3
        assert said(nodes) == []


@pytest.mark.parametrize("kind", FOUR)
@pytest.mark.parametrize("what", ["log", "table"])
def test_repeated_lines_are_stored_without_a_word(kind, what, fake_model: PplxEmbedding, tmp_path):
    lines = {"log": ["GET /health 200 from the balancer"] * 120, "table": ["| part | 0 | not available |"] * 120}[what]
    splitter = SentenceSplitter(chunk_size=64, chunk_overlap=0, paragraph_separator="\n", separator="\n")
    document, store = Document(id_="d", text="\n".join(lines)), make_store(kind, tmp_path)
    index = contextual_index([document], embed_model=fake_model, vector_store=store.vector_store, splitter=splitter)
    chunks = [one.text for one in splitter([document])]
    assert len(chunks) > 3
    [matrix] = fake_model.encode_documents([chunks], normalize=True)
    found = sorted(map(tuple, np.round(list(read_back(index, store).values()), 4)))
    np.testing.assert_allclose(found, sorted(map(tuple, np.round(matrix, 4))), atol=2e-4)


@pytest.mark.parametrize("kind", FOUR)
def test_what_is_warned_about_is_stored_as_it_was_given(kind, fake_model: PplxEmbedding, tmp_path):
    """Several levels of one hierarchy, and small chunks beside the big ones they were cut from."""
    levels = HierarchicalNodeParser.from_defaults(chunk_sizes=[256, 64], chunk_overlap=0)([Document(text=TEXT)])
    big = SentenceSplitter(chunk_size=256, chunk_overlap=0)([Document(id_="d", text=TEXT)])
    copies = [*big, *SentenceSplitter(chunk_size=64, chunk_overlap=0)(big)]
    for n, nodes in enumerate((levels, copies)):
        store = make_store(kind, tmp_path / str(n))
        with pytest.warns(ContextWarning, match="at several levels"):
            index = ContextualVectorStoreIndex(
                nodes=nodes,
                embed_model=fake_model,
                storage_context=StorageContext.from_defaults(vector_store=store.vector_store),
            )
        assert read_back(index, store).keys() == {one.node_id for one in nodes}


def test_real_overlap_is_found_in_each_document():
    splitter = SentenceSplitter(chunk_size=64, chunk_overlap=20)
    for name in ("a", "b"):
        [message] = said(splitter([Document(id_=name, text=TEXT)]))
        assert f"document '{name}' repeats" in message


def test_several_levels_in_one_call_are_said():
    nodes = HierarchicalNodeParser.from_defaults(chunk_sizes=[256, 64], chunk_overlap=0)([Document(text=TEXT)])
    assert any("at several levels" in message for message in said(nodes))


def test_small_to_big_copies_are_said():
    big = SentenceSplitter(chunk_size=256, chunk_overlap=0)([Document(id_="d", text=TEXT)])
    small = SentenceSplitter(chunk_size=64, chunk_overlap=0)(big)
    references = [IndexNode.from_text_node(one, big[0].node_id) for one in small]
    for nodes in ([*big, *small], [*big, *references], [*references, big[0]]):
        assert any("at several levels" in message for message in said(nodes))
    assert said(small) == []


def test_short_chunks_that_stand_in_others_are_none():
    words = [
        "Yes.",
        "No.",
        "Yes. And no. " + TEXT,
        "All rights reserved.",
        "Copyright. All rights reserved. " + TEXT[::-1],
    ]
    assert said([node(text, document="d") for text in words]) == []


def test_a_document_split_twice_into_one_call_is_said():
    nodes = [
        *SPLITTER(hard_documents(1)),
        *SentenceSplitter(chunk_size=64, chunk_overlap=0)([Document(id_="x", text=TEXT)]),
    ]
    again = SentenceSplitter(chunk_size=64, chunk_overlap=0)([Document(id_="x", text=TEXT)])
    assert said(nodes) == []
    assert any("'x' was given 2 times" in message for message in said([*nodes, *again]))


def test_each_kind_is_said_once_a_call_and_none_uses_up_another(embed_model):
    overlapping = SentenceSplitter(chunk_size=64, chunk_overlap=20)([Document(id_="o", text=TEXT)])
    lone = [TextNode(text=text) for text in ("one", "two", "three")]
    for nodes, kinds in [
        (overlapping, ["repeats"]),
        ([*overlapping[:-1], *lone], ["repeats", "embedded in part", "3 of"]),
        (lone, ["3 of 3 nodes name no document"]),
        (lone, ["3 of 3 nodes name no document"]),
    ]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            embed_model(nodes)
        messages = [str(warning.message) for warning in caught if warning.category is ContextWarning]
        assert len(messages) == len(kinds)
        assert all(kind in message for kind, message in zip(kinds, messages, strict=True))


def test_documents_themselves_are_documents(embed_model):
    embed_model([Document(text="a whole one"), Document(text="another")])


def test_links_make_a_document_where_no_source_is_named():
    nodes = [TextNode(text=text) for text in "abcd"]
    link(*nodes)
    assert texts([nodes[2], nodes[0], nodes[3], nodes[1]]) == [["a", "b", "c", "d"]]
    parent = {NodeRelationship.PARENT: RelatedNodeInfo(node_id="the parent")}
    children = [TextNode(text=text, relationships=dict(parent)) for text in "ef"]
    assert texts([children[0], *nodes, children[1]]) == [["e", "f"], ["a", "b", "c", "d"]]
    sourced, lone = node("g", document="d"), TextNode(text="h")
    link(sourced, lone)
    assert texts([lone, sourced]) == [["g", "h"]]


@pytest.mark.parametrize("kind", FOUR)
@pytest.mark.parametrize("by", ["links", "parent"])
def test_what_is_linked_stays_a_document_in_the_store(kind, by, fake_model: PplxEmbedding, tmp_path):
    words = [f"Part {n} of a book." for n in range(6)]
    nodes = [TextNode(text=text) for text in words]
    if by == "links":
        link(*nodes)
    else:
        for one in nodes:
            one.relationships = {NodeRelationship.PARENT: RelatedNodeInfo(node_id="book")}
    store = make_store(kind, tmp_path)
    index = contextual_index([], embed_model=fake_model, vector_store=store.vector_store)
    if kind == "faiss":  # which replaces no vector, so all come at once
        index.insert_nodes([nodes[n] for n in (3, 0, 5, 1, 4, 2)])
        [matrix] = fake_model.encode_documents(
            [words if by == "links" else [words[n] for n in (3, 0, 5, 1, 4, 2)]], normalize=True
        )
        order = nodes if by == "links" else [nodes[n] for n in (3, 0, 5, 1, 4, 2)]
        assert_same_vectors(read_back(index, store), {one.node_id: row for one, row in zip(order, matrix, strict=True)})
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ContextWarning)  # in part, until the last has come
        index.insert_nodes(nodes[:3])
        index.insert_nodes(nodes[3:5])
    index.insert_nodes(nodes[5:])
    [matrix] = fake_model.encode_documents([words], normalize=True)
    assert_same_vectors(read_back(index, store), {one.node_id: row for one, row in zip(nodes, matrix, strict=True)})
    assert all(NodeRelationship.SOURCE not in one.relationships for one in nodes)
    index.delete_ref_doc(nodes[0].node_id if by == "links" else "book")
    assert read_back(index, store) == {}


@pytest.mark.parametrize("kind", ["default", "qdrant", "chroma"])
def test_the_order_of_nodes_that_have_no_position_is_kept_by_the_store(kind, fake_model: PplxEmbedding, tmp_path):
    words = [f"Part {n} of a book." for n in range(8)]
    nodes = [node(text, document="book") for text in words]
    store = make_store(kind, tmp_path)
    index = contextual_index([], embed_model=fake_model, vector_store=store.vector_store)
    for start in (0, 3, 6):
        index.insert_nodes(nodes[start : start + 3])
    [matrix] = fake_model.encode_documents([words], normalize=True)
    assert_same_vectors(store.read([]), {one.node_id: row for one, row in zip(nodes, matrix, strict=True)})


def test_offsets_that_were_found_in_another_chunk_are_no_order():
    nodes = [
        node("ok", document="d", start=4),
        node("then ok", document="d", start=0),
        node("ok then", document="d", start=2),
    ]
    assert texts(nodes) == [["ok", "then ok", "ok then"]]


def test_pointers_to_one_thing_without_a_document_are_counted():
    pointers = [IndexNode(text=f"River {n} rises in the hills.", index_id="rivers") for n in range(3)]
    assert any("3 of 3 nodes name no document" in message for message in said(pointers))
    assert said([IndexNode(text=f"About {name}.", index_id=name) for name in ("rivers", "lakes")]) == []


@pytest.mark.parametrize("kind", FOUR)
def test_nodes_with_nothing_are_counted(kind, fake_model: PplxEmbedding, tmp_path):
    nodes = [TextNode(text=text) for text in ("one", "two")]
    store = make_store(kind, tmp_path)
    with pytest.warns(ContextWarning, match="2 of 2 nodes name no document"):
        index = ContextualVectorStoreIndex(
            nodes=nodes,
            embed_model=fake_model,
            callback_manager=CallbackManager([]),
            storage_context=StorageContext.from_defaults(vector_store=store.vector_store),
        )
    [one, two] = fake_model.encode_documents([["one"], ["two"]], normalize=True)
    assert_same_vectors(read_back(index, store), {nodes[0].node_id: one[0], nodes[1].node_id: two[0]})
