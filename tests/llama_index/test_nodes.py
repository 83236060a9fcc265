"""Which nodes make a document, in which order, and which text of theirs is read."""

import itertools
import random

import numpy as np
import pytest
from llama_index.core import Document
from llama_index.core.node_parser import HierarchicalNodeParser, MarkdownNodeParser, SentenceSplitter, get_leaf_nodes
from llama_index.core.schema import MetadataMode, NodeRelationship, RelatedNodeInfo, TextNode

from pplx_embed_integrations import ContextWarning
from pplx_embed_integrations.llama_index.findings import findings
from pplx_embed_integrations.llama_index.nodes import batches, read_documents
from tests.llama_index.cases import SPLITTER, assert_same_vectors, expected_vectors, hard_documents, shuffled_nodes


def texts(nodes, **options):
    return [document.texts for document in read_documents(nodes, MetadataMode.NONE, header_once=False, **options)]


def node(text, *, document=None, start=None, **fields):
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)} if document else {}
    return TextNode(text=text, start_char_idx=start, relationships=source, **fields)


def link(*nodes):
    """Give nodes PREVIOUS and NEXT in this order."""
    for before, after in itertools.pairwise(nodes):
        before.relationships[NodeRelationship.NEXT] = RelatedNodeInfo(node_id=after.node_id)
        after.relationships[NodeRelationship.PREVIOUS] = RelatedNodeInfo(node_id=before.node_id)


def test_offsets_order_a_document_whatever_the_order_of_the_nodes():
    documents = hard_documents(4)
    shuffled = shuffled_nodes(documents)
    assert sorted(texts(shuffled)) == sorted(document.text.split("\n\n") for document in documents)


def test_without_offsets_the_links_order_it():
    documents = hard_documents(4)
    nodes = shuffled_nodes(documents)
    for one in nodes:
        one.start_char_idx = None
    assert sorted(texts(nodes)) == sorted(document.text.split("\n\n") for document in documents)


def test_links_one_way_are_enough():
    nodes = [node(str(number), document="d") for number in range(8)]
    link(*nodes)
    for one in nodes[::2]:
        del one.relationships[NodeRelationship.NEXT]
        one.relationships.pop(NodeRelationship.PREVIOUS, None)
    random.Random(1).shuffle(nodes)
    assert texts(nodes) == [[str(number) for number in range(8)]]


def test_without_either_the_input_order_stands():
    nodes = [node(str(number), document="d") for number in (3, 1, 2)]
    assert texts(nodes) == [["3", "1", "2"]]


def test_offsets_that_count_from_each_section_do_not_interleave_the_sections():
    first, second, third, fourth = (
        node(text, document="d", start=start) for text, start in [("a", 0), ("b", 9), ("c", 2), ("d", 11)]
    )
    link(first, second, third, fourth)
    assert texts([first, second, third, fourth]) == [["a", "b", "c", "d"]]
    assert texts([fourth, second, third, first]) == [["a", "b", "c", "d"]]


def test_links_in_a_circle_are_no_order():
    nodes = [node(text, document="d") for text in "abc"]
    link(*nodes, nodes[0])
    assert texts(nodes) == [["a", "b", "c"]]


def test_two_splitters_in_a_row_keep_the_reading_order():
    sections = [f"# Head {n}\n\n" + " ".join(f"Sentence {n} number {m}." for m in range(20)) for n in range(4)]
    document = Document(text="\n\n".join(sections), id_="d")
    nodes = SentenceSplitter(chunk_size=64, chunk_overlap=0)(MarkdownNodeParser()([document]))
    assert len(nodes) > 8
    in_order = [one.get_content() for one in nodes]
    random.Random(2).shuffle(nodes)
    assert texts(nodes) == [in_order]


def test_nodes_without_a_document_stand_alone():
    assert texts([node("a"), node("b", document="d"), node("c"), node("d", document="d")]) == [["a"], ["b", "d"], ["c"]]


def test_nodes_without_text_are_left_out_and_counted(embed_model, caplog):
    nodes = [node("a", document="d", start=0), node("", document="d", start=5), node("")]
    with caplog.at_level("WARNING", logger="pplx_embed_integrations"):
        assert embed_model(nodes) == nodes
    assert [one.embedding is None for one in nodes] == [False, True, True]
    assert "2 nodes have no text" in caplog.text


def test_batches_hold_whole_documents():
    documents = read_documents(SPLITTER(hard_documents(5)), MetadataMode.NONE, header_once=False)
    runs = list(batches(documents, 12))
    assert [len(run) for run in runs] == [2, 2, 1]
    assert [document for run in runs for document in run] == documents


@pytest.mark.parametrize("size", [1, 12, 2048])
def test_the_batch_size_changes_no_vector(size, make_model):
    documents = hard_documents(3)
    embed_model = make_model(embed_batch_size=size, quantization=None)
    nodes = embed_model(shuffled_nodes(documents))
    assert_same_vectors({one.node_id: one.embedding for one in nodes}, expected_vectors(embed_model, documents))


def document_with_metadata():
    document = Document(id_="d", text="one\n\ntwo\n\nthree", metadata={"title": "Rivers", "page": 7})
    document.excluded_embed_metadata_keys = ["page"]
    return document


def test_metadata_stands_before_each_chunk_by_default(embed_model):
    nodes = embed_model(SPLITTER([document_with_metadata()]))
    [expected] = embed_model.encode_documents(
        [["title: Rivers\n\none", "title: Rivers\n\ntwo", "title: Rivers\n\nthree"]], normalize=True
    )
    np.testing.assert_allclose([one.embedding for one in nodes], expected, atol=1e-6)


def test_metadata_mode_none_embeds_the_text_alone(make_model):
    embed_model = make_model(metadata_mode="none")
    nodes = embed_model(SPLITTER([document_with_metadata()]))
    [expected] = embed_model.encode_documents([["one", "two", "three"]], normalize=True)
    np.testing.assert_allclose([one.embedding for one in nodes], expected, atol=1e-6)


async def test_metadata_per_document_is_read_once_before_the_first_chunk(make_model):
    embed_model = make_model(metadata_per_document=True)
    [expected] = embed_model.encode_documents([["title: Rivers", "one", "two", "three"]], normalize=True)
    nodes = embed_model(SPLITTER([document_with_metadata()]))
    np.testing.assert_allclose([one.embedding for one in nodes], expected[1:], atol=1e-6)
    nodes = await embed_model.acall(SPLITTER([document_with_metadata()]))
    np.testing.assert_allclose([one.embedding for one in nodes], expected[1:], atol=1e-6)


def test_metadata_of_single_chunks_stays_with_them(make_model):
    embed_model = make_model(metadata_per_document=True)
    nodes = SPLITTER([document_with_metadata()])
    for number, one in enumerate(nodes):
        one.metadata["section"] = number
    [read] = read_documents(nodes, MetadataMode.EMBED, header_once=True)
    assert read.chunks == ["title: Rivers", "section: 0\n\none", "section: 1\n\ntwo", "section: 2\n\nthree"]
    assert embed_model(nodes)[0].metadata == {"title": "Rivers", "page": 7, "section": 0}


def test_overlap_is_found_and_the_setting_named(embed_model):
    document = Document(text=" ".join(f"Sentence number {number} of a long text." for number in range(60)))
    nodes = SentenceSplitter(chunk_size=64, chunk_overlap=20)([document])
    with pytest.warns(ContextWarning, match=r"SentenceSplitter\(chunk_overlap=0\)"):
        embed_model(nodes)
    with pytest.warns(ContextWarning, match=r"SentenceSplitter\(chunk_overlap=0\)"):  # each call says so
        embed_model(nodes)


def test_a_repeated_footer_is_no_overlap(embed_model):
    embed_model(shuffled_nodes(hard_documents()))


def test_a_document_in_part_is_noticed(embed_model):
    nodes = SPLITTER(hard_documents(2))
    assert findings(nodes, read_documents(nodes, MetadataMode.NONE, header_once=False)) == []
    for _ in range(2):
        with pytest.warns(ContextWarning, match="'report-1' is not among the nodes given"):
            embed_model(nodes[:-3])


def test_the_leaves_of_a_hierarchy_are_a_document(embed_model):
    text = " ".join(f"Sentence number {number} of a long text." for number in range(60))
    parser = HierarchicalNodeParser.from_defaults(chunk_sizes=[256, 64], chunk_overlap=0)
    leaves = get_leaf_nodes(parser([Document(text=text, id_="d")]))
    assert texts(leaves) == [[leaf.get_content() for leaf in leaves]]
    embed_model(leaves)
    [expected] = embed_model.encode_documents([[leaf.get_content() for leaf in leaves]], normalize=True)
    np.testing.assert_allclose([leaf.embedding for leaf in leaves], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "a list of LlamaIndex nodes is wanted, not NoneType"),
        ("text", "a list of LlamaIndex nodes is wanted, not str"),
        (b"text", "not bytes"),
        (TextNode(text="a"), "not TextNode"),
        ([TextNode(text="a"), "b"], "node 1 must be a LlamaIndex node, not str; texts go through get_text_embedding"),
        ([None], "node 0 must be a LlamaIndex node, not NoneType"),
    ],
)
async def test_what_is_no_list_of_nodes_is_refused(given, message, embed_model):
    with pytest.raises(TypeError, match=message):
        embed_model(given)
    with pytest.raises(TypeError, match=message):
        await embed_model.acall(given)
