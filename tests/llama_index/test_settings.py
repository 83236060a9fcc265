"""What users of VectorStoreIndex expect: Settings, transformations, callbacks, progress, options of the index."""

import re

import numpy as np
import pytest
from llama_index.core import Document, MockEmbedding, PropertyGraphIndex, Settings, StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.extractors import BaseExtractor
from llama_index.core.graph_stores.types import KG_NODES_KEY, KG_RELATIONS_KEY
from llama_index.core.node_parser import MarkdownNodeParser, SentenceSplitter, TokenTextSplitter
from llama_index.core.schema import TransformComponent

from pplx_embed_integrations import ContextWarning, InputError, InputTypeError
from pplx_embed_integrations.llama_index import PplxEmbedding, acontextual_index, contextual_index
from pplx_embed_integrations.llama_index.intake import transformations_of
from tests.llama_index.cases import (
    FOUR,
    SPLITTER,
    assert_same_vectors,
    chunk_id,
    expected_vectors,
    hard_documents,
    make_store,
    read_back,
)

TEXT = " ".join(f"Sentence number {number} of a long text." for number in range(100))


@pytest.fixture
def settings():
    before = dict(vars(Settings))
    for name in ("_embed_model", "_node_parser", "_transformations", "_callback_manager"):
        setattr(Settings, name, None)
    yield Settings
    vars(Settings).update(before)


class Numbers(BaseExtractor):
    """Gives every node its number."""

    @classmethod
    def class_name(cls) -> str:
        return "Numbers"

    async def aextract(self, nodes):
        return [{"number": number} for number, _ in enumerate(nodes)]


class Nothing(TransformComponent):
    """Extracts nothing for a graph."""

    def __call__(self, nodes, **kwargs):
        for node in nodes:
            node.metadata |= {KG_NODES_KEY: [], KG_RELATIONS_KEY: []}
        return nodes


class Adapter(BaseEmbedding):
    """Moves every query to where it wants it, as a trained adapter would."""

    vector: list[float]

    def _get_query_embedding(self, query):
        return self.vector

    async def _aget_query_embedding(self, query):
        return self.vector

    def _get_text_embedding(self, text):
        raise AssertionError("an adapter of queries embeds no text")


def chunks(index):
    return sorted(index.docstore.docs.values(), key=lambda node: node.start_char_idx)


@pytest.mark.parametrize("kind", FOUR)
def test_the_model_of_settings_is_taken(kind, settings, fake_model, tmp_path):
    settings.embed_model, store = fake_model, make_store(kind, tmp_path)
    index = contextual_index(hard_documents(2), splitter=SPLITTER, vector_store=store.vector_store)
    assert_same_vectors(read_back(index, store), expected_vectors(fake_model, hard_documents(2)))


def test_without_any_model_it_is_asked_for(settings):
    with pytest.raises(InputTypeError, match=r"give embed_model=PplxEmbedding\(...\), or set Settings.embed_model"):
        contextual_index(hard_documents(1))


def test_the_chunk_size_of_settings_is_taken_without_the_overlap_that_nobody_chose(
    settings, embed_model, fake_model, tmp_path
):
    settings.chunk_size = 64
    index = contextual_index([Document(text=TEXT)], embed_model=embed_model)
    expected = SentenceSplitter(chunk_size=64, chunk_overlap=0)([Document(text=TEXT)])
    assert [node.text for node in chunks(index)] == [node.text for node in expected]
    assert settings.chunk_overlap == 200
    for kind in FOUR:
        store = make_store(kind, tmp_path / kind)
        index = contextual_index([Document(text=TEXT)], embed_model=fake_model, vector_store=store.vector_store)
        [matrix] = fake_model.encode_documents([[node.text for node in expected]], normalize=True)
        found = sorted(tuple(vector) for vector in read_back(index, store).values())
        np.testing.assert_allclose(found, sorted(map(tuple, matrix)), atol=1e-5)
    settings.chunk_overlap = 20
    with pytest.warns(ContextWarning, match="repeats"):
        contextual_index([Document(text=TEXT)], embed_model=embed_model)


def test_the_splitter_and_the_transformations_of_settings_are_taken(settings, embed_model):
    settings.text_splitter = TokenTextSplitter(chunk_size=50, chunk_overlap=0)
    document = Document(text=TEXT)
    index = contextual_index([document], embed_model=embed_model)
    assert [node.text for node in chunks(index)] == [node.text for node in settings.text_splitter([document])]
    settings.transformations = [SPLITTER, Numbers(), embed_model]
    index = contextual_index(hard_documents(1), embed_model=embed_model)
    assert {node.metadata["number"] for node in index.docstore.docs.values()} == set(range(11))


@pytest.mark.parametrize("kind", FOUR)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_several_parsers_and_extractors(kind, asynchronous, fake_model: PplxEmbedding, tmp_path):
    sections = "\n\n".join(f"# Head {n}\n\n" + " ".join(f"Sentence {n} {m}." for m in range(40)) for n in range(3))
    parsers = [MarkdownNodeParser(), SentenceSplitter(chunk_size=60, chunk_overlap=0)]
    store, documents = make_store(kind, tmp_path), [Document(id_="d", text=sections)]
    options = {
        "embed_model": fake_model,
        "transformations": [*parsers, Numbers(), fake_model],
        "vector_store": store.vector_store,
    }
    index = await acontextual_index(documents, **options) if asynchronous else contextual_index(documents, **options)
    nodes = Numbers()(parsers[1](parsers[0](documents)))
    assert len(nodes) > 3
    [matrix] = fake_model.encode_documents([[node.get_content("embed") for node in nodes]], normalize=True)
    found = sorted(tuple(vector) for vector in read_back(index, store).values())
    np.testing.assert_allclose(found, sorted(map(tuple, matrix)), atol=1e-5)
    assert index.refresh_ref_docs(documents) == [False]


def test_tokens_are_counted_as_llama_index_counts_them(exact_model: PplxEmbedding):
    counts = []
    for way in ("plain", "contextual", "settings"):
        handler = TokenCountingHandler(tokenizer=str.split)
        manager = CallbackManager([handler])
        documents = [Document(text=d.text, metadata={"river": "Rhine"}) for d in hard_documents(2)]
        if way == "plain":
            with pytest.warns(ContextWarning):
                VectorStoreIndex.from_documents(
                    documents, embed_model=exact_model, transformations=[SPLITTER], callback_manager=manager
                )
        elif way == "contextual":
            contextual_index(documents, embed_model=exact_model, splitter=SPLITTER, callback_manager=manager)
        else:
            before, Settings._callback_manager = Settings._callback_manager, manager
            try:
                contextual_index(documents, embed_model=exact_model, splitter=SPLITTER)
            finally:
                Settings._callback_manager = before
        counts.append(handler.total_embedding_token_count)
    assert counts[0] > 0
    assert len(set(counts)) == 1


def test_progress_counts_documents_and_chunks(embed_model, capsys):
    contextual_index(hard_documents(3), embed_model=embed_model, splitter=SPLITTER, show_progress=True)
    assert re.search(r"Embedding documents: 100%.* 3/3 .*33 of 33 chunks", capsys.readouterr().err)


def test_options_of_the_index_are_passed_on(exact_model, tmp_path):
    storage = StorageContext.from_defaults()
    index = contextual_index(
        hard_documents(2),
        embed_model=exact_model,
        splitter=SPLITTER,
        storage_context=storage,
        index_id="rivers",
        insert_batch_size=3,
        store_nodes_override=True,
        use_async=True,
    )
    assert index.index_id == "rivers"
    assert_same_vectors(index.vector_store.data.embedding_dict, expected_vectors(exact_model, hard_documents(2)))


def test_what_is_given_wrongly_is_refused(embed_model):
    documents = hard_documents(1)
    with pytest.raises(InputError, match="splitter or transformations, not both"):
        contextual_index(documents, embed_model=embed_model, splitter=SPLITTER, transformations=[SPLITTER])
    with pytest.raises(InputTypeError, match="transformations must be a list, not Paragraphs"):
        contextual_index(documents, embed_model=embed_model, transformations=SPLITTER)
    with pytest.raises(InputTypeError, match="transformation 1 must be a LlamaIndex transformation, not str"):
        contextual_index(documents, embed_model=embed_model, transformations=[SPLITTER, "embed"])
    with pytest.raises(InputTypeError, match=r"there is no option 'insert_batch' \(did you mean 'insert_batch_size'"):
        contextual_index(documents, embed_model=embed_model, insert_batch=40)


@pytest.mark.parametrize(
    "remake",
    [
        lambda model: PplxEmbedding.model_validate(model.model_dump()),
        lambda model: PplxEmbedding.from_dict(model.to_dict()),
        lambda model: PplxEmbedding.from_json(model.to_json()),
        lambda model: PplxEmbedding(**model.model_dump()),
        lambda model: model.copy(update={"normalize": True}).copy(update={"normalize": False}),
        lambda model: model.model_copy(update={"embed_batch_size": 7}),
    ],
)
def test_a_model_can_be_taken_apart_and_made_again(remake, make_model):
    model = make_model(dimensions=16, quantization="binary", normalize=False, metadata_mode="none", embed_batch_size=7)
    again = remake(model)
    assert again.to_dict() == model.to_dict()
    assert again.get_query_embedding("a river") == model.get_query_embedding("a river")


def test_the_splitter_that_a_plain_index_leaves_in_settings_is_nobodys_choice(settings):
    VectorStoreIndex(nodes=[], embed_model=MockEmbedding(embed_dim=4))
    assert [splitter.chunk_overlap for splitter in settings.transformations] == [200]
    assert [splitter.chunk_overlap for splitter in transformations_of(None)] == [0]
    assert [splitter.chunk_overlap for splitter in settings.transformations] == [200]


@pytest.mark.parametrize("kind", FOUR)
def test_an_adapter_of_queries_is_refused_at_indexing_and_works_at_asking(kind, fake_model: PplxEmbedding, tmp_path):
    wanted = chunk_id(4, hard_documents(2)[1])
    adapter = Adapter(vector=expected_vectors(fake_model, hard_documents(2))[wanted].tolist())
    with pytest.raises(InputTypeError, match=r"as_retriever\(embed_model="):
        contextual_index(hard_documents(1), embed_model=adapter)
    store = make_store(kind, tmp_path)
    index = contextual_index(
        hard_documents(2), embed_model=fake_model, vector_store=store.vector_store, splitter=SPLITTER
    )
    [found] = index.as_retriever(embed_model=adapter, similarity_top_k=1).retrieve("anything")
    assert found.node_id == wanted


@pytest.mark.parametrize("plain", [False, True])
def test_a_graph_keeps_the_vectors_of_its_chunks_or_warns(plain, fake_model: PplxEmbedding):
    nodes, options = SPLITTER(hard_documents(2)), {"embed_model": fake_model, "kg_extractors": [Nothing()]}
    if plain:
        with pytest.warns(ContextWarning, match="came without their documents"):
            PropertyGraphIndex(nodes=nodes, **options)
        return
    graph = PropertyGraphIndex(nodes=fake_model(nodes), embed_kg_nodes=False, **options)
    held = graph.property_graph_store.get(ids=[node.node_id for node in nodes])
    assert_same_vectors({node.id_: node.embedding for node in held}, expected_vectors(fake_model, hard_documents(2)))
