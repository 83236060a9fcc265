"""contextual_index and what is done to an index afterwards: insert, refresh, nodes of a known document, queries."""

import numpy as np
import pytest
from llama_index.core import Document, MockEmbedding, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from pplx_embed_integrations import ContextWarning, InputError, InputTypeError, NotContextualError
from pplx_embed_integrations.llama_index import ContextualVectorStoreIndex, PplxEmbedding, contextual_index
from tests.llama_index.cases import (
    SPLITTER,
    Encodes,
    assert_same_vectors,
    expected_vectors,
    hard_documents,
    make_store,
    shuffled_nodes,
)


def stored(index):
    return dict(index.vector_store.data.embedding_dict)


@pytest.fixture
def documents():
    return hard_documents(4)


def test_documents_are_split_without_overlap_by_default(exact_model: PplxEmbedding):
    text = " ".join(f"Sentence number {number} of a long text." for number in range(200))
    index = contextual_index([Document(text=text)], embed_model=exact_model)
    nodes = sorted(index.docstore.docs.values(), key=lambda node: node.start_char_idx)
    assert len(nodes) > 1
    [expected] = exact_model.encode_documents([[node.text for node in nodes]], normalize=True)
    np.testing.assert_allclose([stored(index)[node.node_id] for node in nodes], expected, atol=1e-5)


def test_the_documented_transformations_give_the_same(fake_model: PplxEmbedding, documents):
    with Encodes() as encodes:
        index = VectorStoreIndex.from_documents(
            documents, transformations=[SPLITTER, fake_model], embed_model=fake_model
        )
        assert len(encodes.texts) == 44
        index.insert(Document(id_="new", text="one\n\ntwo"))
        assert len(encodes.texts) == 46
    expected = expected_vectors(fake_model, [*documents, Document(id_="new", text="one\n\ntwo")])
    assert_same_vectors(stored(index), expected)


def test_the_plain_way_is_warned_about(fake_model: PplxEmbedding, documents):
    with pytest.warns(ContextWarning, match="came without their documents"):
        VectorStoreIndex.from_documents(documents, transformations=[SPLITTER], embed_model=fake_model)


def test_inserts_and_refreshes_are_contextual(fake_model: PplxEmbedding, documents):
    index = contextual_index(documents[:2], embed_model=fake_model, splitter=SPLITTER)
    with Encodes() as encodes:
        index.insert(documents[2])
        assert index.refresh_ref_docs(documents) == [False, False, False, True]
        assert len(encodes.texts) == 22
        assert index.refresh_ref_docs(documents) == [False] * 4
        assert len(encodes.texts) == 22
    assert_same_vectors(stored(index), expected_vectors(fake_model, documents))


async def test_so_are_the_asynchronous_ones(fake_model: PplxEmbedding, documents):
    index = contextual_index(documents[:2], embed_model=fake_model, splitter=SPLITTER)
    await index.ainsert(documents[2])
    assert await index.arefresh_ref_docs(documents) == [False, False, False, True]
    assert_same_vectors(stored(index), expected_vectors(fake_model, documents))


def test_bare_nodes_are_embedded_by_document(fake_model: PplxEmbedding, documents):
    nodes = shuffled_nodes(documents)
    index = ContextualVectorStoreIndex(nodes=nodes, embed_model=fake_model)
    assert_same_vectors(stored(index), expected_vectors(fake_model, documents))
    assert all(node.embedding is None for node in nodes)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_new_nodes_of_a_known_document_are_read_with_the_old(asynchronous, fake_model, documents):
    nodes = SPLITTER(documents)
    with pytest.warns(ContextWarning, match="embedded in part"):
        index = ContextualVectorStoreIndex(nodes=nodes[:-3], embed_model=fake_model)
    late = nodes[-3:]
    if asynchronous:
        await index.ainsert_nodes(late)
    else:
        index.insert_nodes(late)
    assert_same_vectors(stored(index), expected_vectors(fake_model, documents))
    assert len(index.docstore.docs) == 44


@pytest.mark.parametrize("kind", ["qdrant", "chroma"])
def test_a_store_that_keeps_text_can_share_its_nodes_with_the_docstore(kind, fake_model, documents, tmp_path):
    store = make_store(kind, tmp_path)
    index = contextual_index(
        [Document(id_=document.id_, text="\n\n".join(document.text.split("\n\n")[:8])) for document in documents],
        embed_model=fake_model,
        vector_store=store.vector_store,
        splitter=SPLITTER,
        store_nodes_override=True,
    )
    index.insert_nodes([node for node in SPLITTER(documents) if node.start_char_idx > 300 and is_late(node, documents)])
    assert_same_vectors(store.read([]), expected_vectors(fake_model, documents))


@pytest.mark.parametrize("kind", ["default", "qdrant", "chroma"])
def test_an_edited_node_replaces_its_old_self_and_moves_its_siblings(kind, fake_model, documents, tmp_path):
    store = make_store(kind, tmp_path)
    index = contextual_index(
        documents,
        embed_model=fake_model,
        vector_store=store.vector_store,
        splitter=SPLITTER,
        store_nodes_override=True,
    )
    edited = Document(id_="report-1", text=documents[1].text.replace("Part 5", "Another"))
    index.insert_nodes([SPLITTER([edited])[5]])
    assert_same_vectors(store.read([]), expected_vectors(fake_model, [documents[0], edited, *documents[2:]]))


def is_late(node, documents):
    return node.node_id in {one.node_id for document in documents for one in SPLITTER([document])[8:]}


@pytest.mark.parametrize("kind", ["qdrant", "chroma"])
def test_a_store_that_keeps_text_is_asked_itself(kind, fake_model, documents, tmp_path):
    store = make_store(kind, tmp_path)
    halves = [Document(id_=document.id_, text="\n\n".join(document.text.split("\n\n")[:8])) for document in documents]
    index = contextual_index(halves, embed_model=fake_model, vector_store=store.vector_store, splitter=SPLITTER)
    index.insert_nodes([node for node in SPLITTER(documents) if is_late(node, documents)])
    assert_same_vectors(store.read([]), expected_vectors(fake_model, documents))


def test_where_a_store_cannot_be_asked_it_is_said(fake_model, documents, tmp_path, monkeypatch):
    store = make_store("chroma", tmp_path)
    monkeypatch.setattr(type(store.vector_store), "get_nodes", BasePydanticVectorStore.get_nodes)
    index = contextual_index(documents, embed_model=fake_model, vector_store=store.vector_store, splitter=SPLITTER)
    late = TextNode(text="new", relationships=dict(list(SPLITTER([documents[0]])[0].relationships.items())[:1]))
    with pytest.warns(ContextWarning, match=r"'report-0' is indexed already.*update_ref_doc"):
        index.insert_nodes([late])
    assert len(store.read([])) == 45
    index.update_ref_doc(documents[0])
    assert_same_vectors(store.read([]), expected_vectors(fake_model, documents))


def test_a_store_that_cannot_delete_keeps_the_old_vectors_and_it_is_said(fake_model, documents, tmp_path):
    store = make_store("faiss", tmp_path)
    index = contextual_index(documents, embed_model=fake_model, vector_store=store.vector_store, splitter=SPLITTER)
    late = TextNode(text="new", relationships=dict(list(SPLITTER([documents[0]])[0].relationships.items())[:1]))
    with pytest.warns(ContextWarning, match="FaissVectorStore cannot replace vectors"):
        index.insert_nodes([late])
    assert store.vector_store.client.ntotal == 45


def test_nodes_that_have_a_vector_keep_it(fake_model: PplxEmbedding, documents):
    index = contextual_index(documents, embed_model=fake_model, splitter=SPLITTER)
    with Encodes() as encodes:
        index.insert_nodes([TextNode(id_="ready", text="ready", embedding=[1.0] * 32)])
    assert encodes.texts == []
    assert stored(index)["ready"] == [1.0] * 32


def test_a_node_that_has_a_vector_is_read_in_its_place(fake_model: PplxEmbedding):
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="d")}
    first, second = (TextNode(text=text, relationships=dict(source)) for text in ("one", "two"))
    first.embedding = [1.0] * 32
    index = ContextualVectorStoreIndex(nodes=[first, second], embed_model=fake_model)
    [expected] = fake_model.encode_documents([["one", "two"]], normalize=True)
    assert_same_vectors(stored(index), {first.node_id: [1.0] * 32, second.node_id: expected[1]})


def test_a_store_is_asked_for_thousands_of_nodes_in_pieces(fake_model: PplxEmbedding, tmp_path, monkeypatch):
    store = make_store("chroma", tmp_path)
    get = type(store.vector_store).get_nodes

    def limited(self, node_ids=None, filters=None):
        assert len(node_ids or []) <= 1_000  # Chroma itself: too many SQL variables
        return get(self, node_ids, filters)

    monkeypatch.setattr(type(store.vector_store), "get_nodes", limited)
    index = contextual_index([], embed_model=fake_model, vector_store=store.vector_store)
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="d")}
    nodes = [TextNode(text=f"line {n}", relationships=dict(source)) for n in range(1_100)]
    index.insert_nodes(nodes)
    index.delete_nodes([node.node_id for node in nodes[1:]])
    [[expected]] = fake_model.encode_documents([["line 0"]], normalize=True)
    assert_same_vectors(store.read([]), {nodes[0].node_id: expected})


def test_blank_documents_are_left_out(fake_model: PplxEmbedding, documents):
    index = contextual_index([documents[0], Document(text="")], embed_model=fake_model, splitter=SPLITTER)
    index.insert(Document(text=""))
    index.insert_nodes([TextNode(text="")])
    assert_same_vectors(stored(index), expected_vectors(fake_model, documents[:1]))


def test_a_saved_index_goes_on_contextual(fake_model: PplxEmbedding, documents, tmp_path):
    contextual_index(documents[:2], embed_model=fake_model, splitter=SPLITTER).storage_context.persist(str(tmp_path))
    index = load_index_from_storage(
        StorageContext.from_defaults(persist_dir=str(tmp_path)),
        embed_model=fake_model,
        transformations=[SPLITTER, fake_model],
    )
    assert index.refresh_ref_docs(documents) == [False, False, True, True]
    assert_same_vectors(stored(index), expected_vectors(fake_model, documents))


def test_a_filled_store_is_opened_with_no_documents(fake_model: PplxEmbedding, documents, tmp_path):
    store = make_store("qdrant", tmp_path)
    contextual_index(documents, embed_model=fake_model, vector_store=store.vector_store, splitter=SPLITTER)
    again = contextual_index([], embed_model=fake_model, vector_store=store.vector_store, splitter=SPLITTER)
    assert len(again.as_retriever(similarity_top_k=3).retrieve("river 2")) == 3
    assert len(store.read([])) == 44


def test_retriever_ranks_by_cosine_with_the_query_model(exact_model: PplxEmbedding, documents, encoder_v1):
    index = contextual_index(documents, embed_model=exact_model, splitter=SPLITTER)
    found = index.as_retriever(similarity_top_k=5).retrieve("Which river?")
    query = encoder_v1.encode(["Which river?"], quantization=None, normalize=True)[0]
    scores = {node_id: float(np.dot(query, vector)) for node_id, vector in stored(index).items()}
    best = sorted(scores, key=scores.__getitem__, reverse=True)[:5]
    assert [one.node_id for one in found] == best
    np.testing.assert_allclose([one.score for one in found], [scores[node_id] for node_id in best], atol=1e-5)


async def test_query_engine_runs_end_to_end(embed_model: PplxEmbedding, documents):
    index = contextual_index(documents, embed_model=embed_model, splitter=SPLITTER)
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=2)
    for answer in (engine.query("Which river?"), await engine.aquery("Which river?")):
        assert len(answer.source_nodes) == 2
        assert answer.source_nodes[0].text in answer.response


async def test_an_index_made_asynchronously_is_contextual(fake_model: PplxEmbedding, documents):
    nodes = await fake_model.acall(SPLITTER(documents))
    index = VectorStoreIndex(nodes=nodes, embed_model=fake_model)
    assert_same_vectors(stored(index), expected_vectors(fake_model, documents))


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (None, "documents must be a list of LlamaIndex documents, not NoneType"),
        ("text", "not str"),
        (["text"], r"document 0 must be a LlamaIndex Document, not str; write Document\(text=...\)"),
        ([Document(text="a"), None], "document 1"),
    ],
)
def test_what_is_no_list_of_documents_is_refused(documents, message, embed_model):
    with pytest.raises(InputTypeError, match=message):
        contextual_index(documents, embed_model=embed_model)


def test_other_arguments_are_checked(embed_model, make_model, replica_v1, documents):
    with pytest.raises(NotContextualError, match="contextual document_model"):
        contextual_index(documents, embed_model=make_model(document_model=replica_v1))
    with pytest.raises(InputTypeError, match="MockEmbedding"):
        contextual_index(documents, embed_model=MockEmbedding(embed_dim=2))
    with pytest.raises(InputError, match="not both"):
        contextual_index(
            documents,
            embed_model=embed_model,
            vector_store=SimpleVectorStore(),
            storage_context=StorageContext.from_defaults(),
        )


def test_progress_is_shown_where_it_is_asked_for(embed_model, documents, capsys):
    contextual_index(documents, embed_model=embed_model, splitter=SPLITTER)
    assert "Embedding documents" not in capsys.readouterr().err
    contextual_index(documents, embed_model=embed_model, splitter=SPLITTER, show_progress=True)
    assert "Embedding documents" in capsys.readouterr().err


def test_a_failed_build_is_not_remembered_as_done(make_model, documents):
    storage = StorageContext.from_defaults()
    with pytest.raises(InputError, match="truncate"):
        contextual_index(documents, embed_model=make_model(max_tokens=2), splitter=SPLITTER, storage_context=storage)
    assert storage.docstore.get_document_hash("report-0") is None


def test_overlapping_splitter_is_noticed(embed_model):
    text = " ".join(f"Sentence number {number} of a long text." for number in range(100))
    with pytest.warns(ContextWarning, match="chunk_overlap=0"):
        contextual_index(
            [Document(text=text)], embed_model=embed_model, splitter=SentenceSplitter(chunk_size=64, chunk_overlap=20)
        )
