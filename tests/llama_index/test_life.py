"""The life of a document in an index: deleted, edited, refused, in every store, by every door."""

import pytest
from llama_index.core import Document, StorageContext
from llama_index.core.node_parser import HierarchicalNodeParser, get_leaf_nodes
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode, TransformComponent
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from pplx_embed_integrations import ContextWarning, InputError
from pplx_embed_integrations.llama_index import ContextualVectorStoreIndex, PplxEmbedding, contextual_index
from tests.llama_index.cases import (
    FOUR,
    SPLITTER,
    Encodes,
    Paragraphs,
    assert_same_vectors,
    chunk_id,
    expected_vectors,
    hard_documents,
    make_store,
    read_back,
)

REPLACING = ["default", "qdrant", "chroma"]
TOO_LONG = "4711;" * 9000


@pytest.fixture
def documents():
    return hard_documents(3)


def build(documents, model, kind, folder, **options):
    store = make_store(kind, folder)
    index = contextual_index(
        documents, embed_model=model, vector_store=store.vector_store, splitter=SPLITTER, **options
    )
    return index, store


def node(text, document, **fields):
    return TextNode(text=text, relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}, **fields)


def edited(document, text="Another part"):
    return Document(id_=document.id_, text=document.text.replace("Part 5", text))


def alone(model, node):
    return {node.node_id: model.encode_documents([[node.text]], normalize=True)[0][0]}


@pytest.mark.parametrize("kind", REPLACING)
@pytest.mark.parametrize("in_docstore", [False, True])
def test_deleted_text_is_read_by_nothing(kind, in_docstore, fake_model: PplxEmbedding, documents, tmp_path):
    index, store = build(documents, fake_model, kind, tmp_path, store_nodes_override=True)
    index.delete_ref_doc("report-1", delete_from_docstore=in_docstore)
    late = node("It costs 900 pounds.", "report-1", id_=chunk_id(50, documents[1]))
    index.insert_nodes([late])
    expected = expected_vectors(fake_model, [documents[0], documents[2]]) | alone(fake_model, late)
    assert_same_vectors(store.read([]), expected)


@pytest.mark.parametrize("kind", REPLACING)
@pytest.mark.parametrize("door", ["delete_nodes", "adelete_nodes"])
async def test_a_deleted_chunk_leaves_the_vectors_of_the_others(kind, door, fake_model, documents, tmp_path):
    index, store = build(documents, fake_model, kind, tmp_path)
    deleted = getattr(index, door)([chunk_id(5, documents[1])])
    if deleted is not None:
        await deleted
    chunks = documents[1].text.split("\n\n")
    [matrix] = fake_model.encode_documents([chunks[:5] + chunks[6:]], normalize=True)
    left = [chunk_id(position, documents[1]) for position in range(11) if position != 5]
    expected = expected_vectors(fake_model, [documents[0], documents[2]]) | dict(zip(left, matrix, strict=True))
    assert_same_vectors(store.read([]), expected)


@pytest.mark.parametrize("kind", [*REPLACING, "faiss"])
def test_a_deleted_document_comes_back_with_a_refresh(kind, fake_model, documents, tmp_path):
    index, store = build(documents, fake_model, kind, tmp_path)
    if kind == "faiss":
        with pytest.raises(InputError, match=r"FaissVectorStore cannot delete.*Build the index anew"):
            index.delete_ref_doc("report-1")
        return
    index.delete_ref_doc("report-1", delete_from_docstore=True)
    assert index.refresh_ref_docs(documents) == [False, True, False]
    assert_same_vectors(store.read([]), expected_vectors(fake_model, documents))


@pytest.mark.parametrize("kind", FOUR)
def test_parents_in_the_docstore_are_no_siblings(kind, fake_model: PplxEmbedding, tmp_path):
    text = " ".join(f"Sentence number {number} of a long text." for number in range(60))
    parser = HierarchicalNodeParser.from_defaults(chunk_sizes=[256, 64], chunk_overlap=0)
    nodes = parser([Document(text=text, id_="d")])
    leaves = get_leaf_nodes(nodes)
    store = make_store(kind, tmp_path)
    storage = StorageContext.from_defaults(vector_store=store.vector_store)
    storage.docstore.add_documents(nodes)
    index = ContextualVectorStoreIndex(nodes=leaves, embed_model=fake_model, storage_context=storage)
    late = node("The last sentence.", "d", start_char_idx=len(text) + 1)
    [before] = fake_model.encode_documents([[leaf.text for leaf in leaves]], normalize=True)
    [matrix] = fake_model.encode_documents([[*(leaf.text for leaf in leaves), late.text]], normalize=True)
    if kind == "faiss":
        with pytest.warns(ContextWarning, match="FaissVectorStore cannot replace vectors"):
            index.insert_nodes([late])
        expected = dict(zip([leaf.node_id for leaf in leaves], before, strict=True)) | {late.node_id: matrix[-1]}
        assert_same_vectors(read_back(index, store), expected)
        return
    index.insert_nodes([late])
    expected = dict(zip([*(leaf.node_id for leaf in leaves), late.node_id], matrix, strict=True))
    assert_same_vectors(read_back(index, store), expected)
    index.update_ref_doc(Document(id_="d", text="All new."))
    assert len(read_back(index, store)) == 1
    if kind == "default":
        assert {one.get_content() for one in index.docstore.docs.values()} == {"All new."}


@pytest.mark.parametrize("kind", FOUR)
def test_an_index_that_shares_the_docstore_keeps_to_itself(kind, fake_model: PplxEmbedding, documents, tmp_path):
    docstore = SimpleDocumentStore()
    stores = [make_store(kind, tmp_path / str(n)) for n in range(2)]
    halves = [Document(id_=d.id_, text=d.text.replace("\n\n", " ")) for d in documents]
    one, two = (
        contextual_index(
            given,
            embed_model=fake_model,
            splitter=SPLITTER if given is documents else Paragraphs(),
            storage_context=StorageContext.from_defaults(docstore=docstore, vector_store=store.vector_store),
        )
        for given, store in zip([documents, halves], stores, strict=True)
    )
    lone = node("lone", "somebody else's")
    two.insert_nodes([lone])
    late = node("late", "report-0")
    if kind == "faiss":
        with pytest.warns(ContextWarning, match="cannot replace vectors"):
            two.insert_nodes([late])
    else:
        two.insert_nodes([late])
    [matrix] = fake_model.encode_documents([[halves[0].text, "late"]], normalize=True)
    found = read_back(two, stores[1])
    assert len(found) == 5
    assert_same_vectors({"late": found[late.node_id]}, {"late": matrix[1]})
    assert_same_vectors({"lone": found[lone.node_id]}, {"lone": alone(fake_model, lone)[lone.node_id]})
    if kind != "faiss":
        two.delete_ref_doc("report-0", delete_from_docstore=True)
        assert len(read_back(two, stores[1])) == 3
    assert_same_vectors(read_back(one, stores[0]), expected_vectors(fake_model, documents))


def test_a_second_index_in_the_same_stores_is_warned_about(fake_model: PplxEmbedding, documents):
    storage = StorageContext.from_defaults()
    one = contextual_index(documents, embed_model=fake_model, splitter=SPLITTER, storage_context=storage)
    halves = [Document(id_=d.id_, text=d.text.replace("\n\n", " ")) for d in documents]
    with pytest.warns(ContextWarning, match=r"'report-0' is in index .* a second index is made beside it"):
        two = contextual_index(halves, embed_model=fake_model, storage_context=storage)
    two.delete_ref_doc("report-0", delete_from_docstore=True)
    assert [len(one.index_struct.nodes_dict), len(two.index_struct.nodes_dict)] == [33, 2]
    assert len(one.as_retriever(similarity_top_k=33).retrieve("river")) == 33


@pytest.mark.parametrize("kind", FOUR)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_new_document_that_cannot_be_embedded_is_named(kind, asynchronous, fake_model, documents, tmp_path):
    index, store = build(documents, fake_model, kind, tmp_path)
    bad = [Document(id_="long", text="4711;" * 900), Document(id_="odd", text="half \ud800 a sign")]
    fine = Document(id_="fine", text="a new one")

    async def refresh(given):
        return await index.arefresh_ref_docs(given) if asynchronous else index.refresh_ref_docs(given)

    with pytest.raises(InputError, match=r"(?s)long.*tokens.*odd"):
        await refresh([*documents, bad[0], fine, bad[1]])
    assert_same_vectors(read_back(index, store), expected_vectors(fake_model, documents))
    assert await refresh([*documents, fine]) == [False] * 3 + [True]
    assert_same_vectors(read_back(index, store), expected_vectors(fake_model, [*documents, fine]))


@pytest.mark.parametrize("kind", FOUR)
def test_one_id_for_nodes_of_two_documents_is_refused(kind, fake_model: PplxEmbedding, documents, tmp_path):
    """A store keeps one node for an id; the document of the other one would have read what is no longer there."""
    index, store = build(documents, fake_model, kind, tmp_path)
    own = chunk_id(0, documents[0])
    with pytest.raises(InputError, match=rf"'{own}' is that of a node of document 'report-0'.*delete_nodes"):
        index.insert_nodes([node("another text", "another", id_=own)])
    twice = [
        node("one text", "a", id_=chunk_id(77, documents[0])),
        node("one text", "b", id_=chunk_id(77, documents[0])),
    ]
    with pytest.raises(InputError, match=r"two different nodes have the id .*documents 'a', 'b'"):
        index.insert_nodes(twice)
    numbered = Paragraphs(id_func=lambda position, document: chunk_id(position, documents[0]))
    other = make_store(kind, tmp_path / "other")
    options = {"embed_model": fake_model, "vector_store": other.vector_store, "splitter": numbered}
    with pytest.raises(InputError, match="an id_func must put the document's id into it"):
        contextual_index(documents, **options)
    second = contextual_index(documents[:1], **options)
    with pytest.raises(InputError, match=r"'report-0' in the index"):
        second.insert(documents[1])
    assert_same_vectors(read_back(second, other), expected_vectors(fake_model, documents[:1]))
    assert_same_vectors(read_back(index, store), expected_vectors(fake_model, documents))
    index.insert_nodes([twice[0], twice[0]])
    assert len(read_back(index, store)) == 34


ODD_NAMES = [
    "it's",
    'a "b"',
    "7",
    "07",
    "x" * 3000,
    "new\nline",
    "s3://a:b",
    "ünï 100%",
    "{x}",
    "None",
    " lead",
    "a",
    "A",
]


@pytest.mark.parametrize("kind", FOUR)
def test_any_name_of_a_document(kind, fake_model: PplxEmbedding, tmp_path):
    given = [Document(id_=name, text=f"one of {n}\n\ntwo of {n}") for n, name in enumerate(ODD_NAMES)]
    index, store = build(given, fake_model, kind, tmp_path)
    assert_same_vectors(read_back(index, store), expected_vectors(fake_model, given))
    assert index.refresh_ref_docs(given) == [False] * len(given)
    if kind == "faiss":
        return
    changed = [Document(id_=document.id_, text=f"{document.text}\n\nthree") for document in given]
    assert index.refresh_ref_docs(changed) == [True] * len(given)
    for document in changed[::2]:
        index.delete_ref_doc(document.id_, delete_from_docstore=True)
    assert_same_vectors(read_back(index, store), expected_vectors(fake_model, changed[1::2]))


@pytest.mark.parametrize("kind", REPLACING)
def test_metadata_that_the_store_refuses_leaves_the_old_version(kind, fake_model: PplxEmbedding, documents, tmp_path):
    index, store = build(documents, fake_model, kind, tmp_path)
    new = Document(id_="report-1", text="All new.", metadata={"nested": {"a": [1]}})
    if kind == "chroma":
        with pytest.raises(ValueError, match="must be one of"):
            index.update_ref_doc(new)
        assert_same_vectors(read_back(index, store), expected_vectors(fake_model, documents))
    else:
        index.update_ref_doc(new)
        assert len(read_back(index, store)) == 23


@pytest.mark.parametrize("kind", REPLACING)
@pytest.mark.parametrize("door", ["insert", "update_ref_doc", "refresh_ref_docs"])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_what_cannot_be_embedded_leaves_all_as_it_was(kind, door, asynchronous, fake_model, documents, tmp_path):
    index, store = build(documents, fake_model, kind, tmp_path)
    bad = [Document(id_="report-0", text=TOO_LONG), Document(id_="report-2", text="half \ud800 a sign")]
    call = getattr(index, "a" + door if asynchronous else door)
    given = [bad[0], edited(documents[1]), bad[1]] if door == "refresh_ref_docs" else bad[0]

    async def change():
        done = call(given)
        return await done if asynchronous else done

    with pytest.raises(InputError, match=r"report-0.*tokens") as refused:
        await change()
    assert ("report-2" in str(refused.value)) is (door == "refresh_ref_docs")
    assert_same_vectors(store.read([]), expected_vectors(fake_model, documents))
    assert index.refresh_ref_docs(documents) == [False] * 3


@pytest.mark.parametrize("kind", REPLACING)
@pytest.mark.parametrize("by_node", [True, False])
def test_a_store_that_refuses_the_new_version_still_has_the_old_version(
    kind, by_node, fake_model, documents, tmp_path, monkeypatch
):
    index, store = build(documents, fake_model, kind, tmp_path)
    if not by_node:  # as many a store that deletes documents only
        monkeypatch.setattr(type(store.vector_store), "delete_nodes", BasePydanticVectorStore.delete_nodes)

    add, calls = type(store.vector_store).add, []

    def refuse_once(*given, **options):
        calls.append(given)
        if len(calls) == 1:
            raise ValueError("metadata that this store does not take")
        return add(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(store.vector_store), "add", refuse_once)
        with pytest.raises(ValueError, match="does not take"):
            index.update_ref_doc(Document(id_="report-1", text="All new."))
    assert_same_vectors(store.read([]), expected_vectors(fake_model, documents))
    assert index.refresh_ref_docs([Document(id_="report-1", text="All new.")]) == [True]
    assert len(store.read([])) == 23


def test_a_chunk_that_a_store_cannot_delete_is_not_passed_over(fake_model, documents, tmp_path, monkeypatch):
    index, store = build(documents, fake_model, "chroma", tmp_path)
    for name in ("delete_nodes", "get_nodes"):
        monkeypatch.setattr(type(store.vector_store), name, getattr(BasePydanticVectorStore, name))
    with pytest.raises(InputError, match=r"deletes whole documents only.*index.delete_ref_doc\(document_id\)"):
        index.delete_nodes([chunk_id(0, documents[0])])
    assert_same_vectors(store.read([]), expected_vectors(fake_model, documents))


@pytest.mark.parametrize("kind", ["qdrant", "chroma"])
@pytest.mark.parametrize("door", ["refresh_ref_docs", "insert", "contextual_index"])
def test_a_restart_doubles_nothing(kind, door, fake_model, documents, tmp_path):
    _, store = build(documents, fake_model, kind, tmp_path)
    options = {"embed_model": fake_model, "vector_store": store.vector_store, "splitter": SPLITTER}
    new = [documents[0], edited(documents[1]), documents[2]]
    if door == "contextual_index":
        contextual_index(new, **options)
    elif door == "insert":
        again = contextual_index([], **options)
        for document in new:
            again.insert(document)
    else:
        assert contextual_index([], **options).refresh_ref_docs(new) == [True] * 3
    assert_same_vectors(store.read([]), expected_vectors(fake_model, new))


def test_a_docstore_that_remembers_more_than_the_store_holds_is_not_believed(fake_model, documents, tmp_path):
    index, _ = build(documents, fake_model, "qdrant", tmp_path)
    empty = make_store("qdrant", tmp_path)
    storage = StorageContext.from_defaults(docstore=index.docstore, vector_store=empty.vector_store)
    again = contextual_index([], embed_model=fake_model, storage_context=storage, splitter=SPLITTER)
    assert again.refresh_ref_docs(documents) == [True] * 3
    assert_same_vectors(empty.read([]), expected_vectors(fake_model, documents))


def test_a_document_that_comes_twice_is_embedded_once(fake_model, documents):
    with Encodes() as encodes:
        index = contextual_index([*documents, documents[0]], embed_model=fake_model, splitter=SPLITTER)
    assert len(encodes.texts) == 33
    assert_same_vectors(index.vector_store.data.embedding_dict, expected_vectors(fake_model, documents))
    with pytest.raises(InputError, match="two documents with different contents have the id 'report-1'"):
        index.refresh_ref_docs([documents[1], edited(documents[1])])


def test_faiss_takes_new_documents_and_refuses_what_it_cannot_do(fake_model, documents, tmp_path):
    index, store = build(documents[:2], fake_model, "faiss", tmp_path)
    assert index.refresh_ref_docs(documents) == [False, False, True]
    with Encodes() as encodes:
        for change in (index.update_ref_doc, index.insert):
            with pytest.raises(InputError, match="FaissVectorStore cannot delete"):
                change(edited(documents[0]))
        with pytest.raises(InputError, match="FaissVectorStore cannot delete"):
            index.delete_nodes([chunk_id(0, documents[0])])
    assert encodes.texts == []
    ids = [chunk_id(position, document) for document in documents for position in range(11)]
    assert_same_vectors(store.read(ids), expected_vectors(fake_model, documents))


def test_a_map_over_faiss_is_refused_too_where_it_would_give_numbers_out_again(fake_model, documents):
    import faiss
    from llama_index.vector_stores.faiss import FaissMapVectorStore

    store = FaissMapVectorStore(faiss_index=faiss.IndexIDMap2(faiss.IndexFlatL2(32)))
    index = contextual_index(documents, embed_model=fake_model, vector_store=store, splitter=SPLITTER)
    with pytest.raises(InputError, match="gives the numbers of deleted ones out again"):
        index.delete_ref_doc("report-0")


def test_an_emptied_document_is_gone(fake_model, documents, tmp_path):
    index, store = build(documents, fake_model, "chroma", tmp_path)
    with pytest.warns(ContextWarning, match="'report-1' has no text any more"):
        index.update_ref_doc(Document(id_="report-1", text=""))
    assert_same_vectors(store.read([]), expected_vectors(fake_model, [documents[0], documents[2]]))


def test_indexes_that_share_a_docstore_leave_each_other_alone(fake_model, documents):
    docstore = SimpleDocumentStore()
    one, other = (
        contextual_index(
            documents,
            embed_model=fake_model,
            splitter=Paragraphs(),
            storage_context=StorageContext.from_defaults(docstore=docstore),
        )
        for _ in range(2)
    )
    new = edited(documents[1])
    assert other.refresh_ref_docs([new]) == [True]
    assert len(one.as_retriever(similarity_top_k=40).retrieve("river")) == 33
    # The docstore remembers the version that the other index holds.
    assert one.refresh_ref_docs([documents[0], new]) == [False, True]
    assert one.refresh_ref_docs([documents[0], new]) == [False, False]
    texts = [found.text for found in one.as_retriever(similarity_top_k=40).retrieve("river")]
    assert len(texts) == 33
    assert sum(text.startswith("Another part") for text in texts) == 1


def test_what_an_extractor_writes_into_a_document_is_no_change_of_it(fake_model):
    class Tag(TransformComponent):
        def __call__(self, nodes, **kwargs):
            for node in nodes:
                node.metadata["tag"] = "river"
            return nodes

    index = contextual_index(hard_documents(2), embed_model=fake_model, transformations=[Tag(), SPLITTER])
    assert index.refresh_ref_docs(hard_documents(2)) == [False, False]


def test_parents_of_what_is_replaced_go_from_the_docstore(fake_model):
    parser = HierarchicalNodeParser.from_defaults(chunk_sizes=[128, 64], chunk_overlap=0)
    nodes = parser([Document(id_="a", text="A river rises in the hills. " * 30), Document(id_="b", text="Short.")])
    storage = StorageContext.from_defaults()
    storage.docstore.add_documents(nodes)
    index = ContextualVectorStoreIndex(nodes=get_leaf_nodes(nodes), embed_model=fake_model, storage_context=storage)
    index.update_ref_doc(Document(id_="a", text="It is dry."))
    assert sorted({node.text for node in storage.docstore.docs.values()}) == ["It is dry.", "Short."]


def test_vectors_that_come_ready_into_a_known_document_are_warned_about(fake_model, documents):
    index = contextual_index(documents, embed_model=fake_model, splitter=SPLITTER)
    with pytest.warns(ContextWarning, match="'report-0' is indexed already.*came with vectors"):
        index.insert_nodes([node("ready", "report-0", embedding=[1.0] * 32)])


def test_a_new_docstore_over_a_filled_store_without_texts_is_refused(fake_model, documents, tmp_path):
    for kind in ("default", "faiss"):
        _, store = build(documents, fake_model, kind, tmp_path)
        with pytest.raises(InputError, match=r"holds 33 vectors already.*load_contextual_index\(storage_context"):
            contextual_index(
                [],
                embed_model=fake_model,
                storage_context=StorageContext.from_defaults(
                    vector_store=store.vector_store, docstore=SimpleDocumentStore()
                ),
            )
