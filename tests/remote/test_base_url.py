"""One model, two places: `base_url` against the same weights in this process, codes equal, through both frameworks."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from langchain_text_splitters import RecursiveCharacterTextSplitter

from pplx_embed_integrations import (
    CheckpointError,
    FakeEmbedder,
    InputError,
    PplxBiEncoder,
    PplxEncoder,
    RemoteEncoder,
    ServerError,
)
from pplx_embed_integrations.embedder import Embedder
from pplx_embed_integrations.langchain import PplxEmbeddings, add_documents, from_documents, index_documents
from pplx_embed_integrations.llama_index import PplxEmbedding, contextual_index
from pplx_embed_integrations.remote import transport
from pplx_embed_integrations.remote.server import ServerLimits
from tests.remote.serving import Served, serving

pytestmark = pytest.mark.filterwarnings("ignore:.*each by itself")

KEY = "a-key-of-ones-own"
TEXTS = ["Marie Curie was born in Warsaw.", "Ψ and 川", "a", "She moved to Paris in 1891."]
FOOTER = "All rights reserved, everywhere and for ever."
SHORT = 64
"""Longest sequence of the model that reads documents in windows."""


@pytest.fixture(scope="module")
def local() -> dict[str, Embedder]:
    return {
        "miniature-v1": PplxEncoder("miniature-v1"),
        "miniature-context-v1": PplxEncoder("miniature-context-v1"),
        "short": PplxEncoder("miniature-context-v1", max_tokens=SHORT),
        "ours": FakeEmbedder(200),
    }


@pytest.fixture(scope="module")
def server(local: dict[str, Embedder]) -> Iterator[Served]:
    with serving(local, api_keys=[KEY], limits=ServerLimits(tokens=2000)) as served:
        yield served


@pytest.fixture(scope="module")
def url(server: Served) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PPLX_EMBED_API_KEY", KEY)
        yield server.url


def same(found: Sequence[Any], wanted: Sequence[Any]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dimensions", [None, 99])
@pytest.mark.parametrize(
    ("quantization", "normalize"),
    [("int8", False), ("int8", True), ("binary", False), ("ubinary", False), (None, False), (None, True)],
)
def test_every_form(
    url: str, local: dict[str, Embedder], quantization: Any, normalize: bool, dimensions: int | None
) -> None:
    form = {"quantization": quantization, "normalize": normalize, "dimensions": dimensions}
    for name, role in (("miniature-v1", "query"), ("miniature-context-v1", "document"), ("ours", None)):
        encoder = RemoteEncoder(name, base_url=url)
        found, wanted = encoder.encode(TEXTS, role=role, **form), local[name].encode(TEXTS, role=role, **form)
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 if quantization is None else 0)
    documents = [TEXTS, TEXTS[:1], TEXTS[::-1]]
    found = RemoteEncoder("miniature-context-v1", base_url=url).encode_documents(documents, **form)
    for one, other in zip(found, local["miniature-context-v1"].encode_documents(documents, **form), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 if quantization is None else 0)


def test_long_documents_are_read_in_the_same_windows(url: str, local: dict[str, Embedder]) -> None:
    """By the server, and by the client where a document is too long for one request."""
    chunks = [f"Chunk {number} speaks of item {7 * number % 11}." for number in range(400)]
    [whole] = local["short"].encode_documents([chunks[:40]])
    for name in ("short", "miniature-context-v1"):
        documents = [chunks[:40], chunks[40:43]]
        same(RemoteEncoder(name, base_url=url).encode_documents(documents), local[name].encode_documents(documents))
    assert (whole != local["miniature-context-v1"].encode_documents([chunks[:40]])[0]).any()
    # Another name of the same checkpoint, whose tokenizer is here, so that windows can be planned.
    with serving({"miniature-context-v1": local["short"]}, limits=ServerLimits(tokens=1000)) as other:
        encoder = RemoteEncoder("miniature-context-v1", base_url=other.url)
        same(encoder.encode_documents([chunks]), local["short"].encode_documents([chunks]))
        with pytest.raises(InputError, match=r"chunk 1 of b\.txt has \d+ tokens and the limit is 64; split it$"):
            encoder.check_documents([["fine"], ["fine", "too long " * 60]], names=["a.txt", "b.txt"])
        with pytest.raises(InputError, match=r"text 1 has \d+ tokens and the limit is 64; split it$"):
            encoder.encode(["fine", "too long " * 60])


def test_what_is_known_to_the_server_alone(url: str, local: dict[str, Embedder]) -> None:
    encoder = RemoteEncoder("ours", base_url=url)
    assert (encoder.dimension, encoder.min_dimension, encoder.contextual) == (200, 25, True)
    assert encoder.identity() == local["ours"].identity()
    same(encoder.encode_documents([TEXTS]), local["ours"].encode_documents([TEXTS]))
    with pytest.raises(CheckpointError, match="has no model 'theirs'; it has miniature-v1, miniature-context-v1, "):
        RemoteEncoder("theirs", base_url=url).encode(TEXTS)


def test_identities_are_those_of_the_weights(url: str, local: dict[str, Embedder]) -> None:
    remote, here = PplxBiEncoder("miniature", base_url=url, dimensions=99), PplxBiEncoder("miniature", dimensions=99)
    assert remote.identity() == here.identity()
    assert remote.query.identity() == here.query.identity() == local["miniature-v1"].identity()
    lc = [PplxEmbeddings("miniature"), PplxEmbeddings("miniature", base_url=url)]
    assert lc[0].vector_identity() == lc[1].vector_identity()
    li = PplxEmbedding("miniature", base_url=url)
    assert li.to_dict()["document_model"] == li.biencoder.document.identity()


def test_a_server_that_has_another_model_by_now_is_noticed() -> None:
    """A cache or a store goes by the identity of the first one."""
    first, second = FakeEmbedder(200), FakeEmbedder(200, max_tokens=99)
    with serving({"ours": first}) as served:
        encoder = RemoteEncoder("ours", base_url=served.url)
        assert encoder.identity() == first.identity()
        encoder.encode(TEXTS)
    with serving({"ours": second}, port=served.port):
        with pytest.raises(CheckpointError, match="has had another model as 'ours' since it was first asked"):
            encoder.encode(TEXTS)
        assert encoder.identity() == second.identity()
        same(encoder.encode(TEXTS), second.encode(TEXTS))


def test_a_server_that_cuts_long_texts(local: dict[str, Embedder]) -> None:
    cutting = PplxEncoder("miniature-context-v1", max_tokens=SHORT, truncate=True)
    chunks = ["too long " * 60, "fine", *(f"Chunk {number} speaks of item {number}." for number in range(60))]
    with serving({"miniature-context-v1": cutting}, limits=ServerLimits(tokens=300)) as served:
        encoder = RemoteEncoder("miniature-context-v1", base_url=served.url)
        same(encoder.encode(chunks[:2]), cutting.encode(chunks[:2]))
        same(encoder.encode_documents([chunks]), cutting.encode_documents([chunks]))


def test_the_key(server: Served) -> None:
    with pytest.raises(ServerError, match=r"answered 401 .*; pass api_key=, or set PPLX_EMBED_API_KEY"):
        RemoteEncoder("miniature-v1", base_url=server.url, api_key="wrong").encode(TEXTS)
    assert PplxEmbeddings("miniature", base_url=server.url, api_key=KEY).embed_query("a key")


def test_a_refusal_names_the_users_document(url: str) -> None:
    """What the client cannot know, the server says: here the words of a model of its own."""
    with serving({"small": FakeEmbedder(200, max_tokens=5)}) as other:
        encoder = RemoteEncoder("small", base_url=other.url)
        documents = [["fine"], ["fine", "one two three four five six"]]
        with pytest.raises(InputError, match=r"does not take chunk 1 of b\.txt: .*tokens and the limit is"):
            encoder.encode_documents(documents, names=["a.txt", "b.txt"])


def test_threads_tasks_and_loops(url: str, local: dict[str, Embedder]) -> None:
    encoder = RemoteEncoder("miniature-v1", base_url=url)
    wanted = dict(zip(TEXTS, local["miniature-v1"].encode(TEXTS), strict=True))
    with ThreadPoolExecutor(8) as pool:
        for text, found in zip(TEXTS * 10, pool.map(lambda text: encoder.encode([text]), TEXTS * 10), strict=True):
            np.testing.assert_array_equal(found[0], wanted[text])

    async def several() -> list[Any]:
        return await asyncio.gather(*(encoder.aencode([text]) for text in TEXTS * 10))

    for text, found in zip(TEXTS * 10, asyncio.run(several()), strict=True):
        np.testing.assert_array_equal(found[0], wanted[text])


def _embed_elsewhere(embeddings: PplxEmbeddings, results: Any) -> None:
    results.put(embeddings.embed_query("from another process"))


def test_another_process(url: str) -> None:
    """A fork in which the connections of this process are, and a pickle in which they are not."""
    embeddings = PplxEmbeddings("miniature", base_url=url)
    here = embeddings.embed_query("from another process")
    assert pickle.loads(pickle.dumps(embeddings)).embed_query("from another process") == here
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    forked = context.Process(target=_embed_elsewhere, args=(embeddings, results))
    forked.start()
    assert results.get(timeout=60) == here
    forked.join()
    assert embeddings.embed_query("from another process") == here


def test_a_query_is_kept_and_the_pair_goes_on_after_close(url: str) -> None:
    pair = PplxBiEncoder("miniature", base_url=url, query_cache=2)
    first = pair.embed_query("again")
    spent = pair.usage.total_tokens
    assert pair.embed_query("again") == first
    assert pair.usage.total_tokens == spent > 0
    pair.close()
    assert pair.embed_query("again") == first


def test_queries_here_and_documents_there(url: str, local: dict[str, Embedder]) -> None:
    split = PplxEmbeddings("miniature", document_model=RemoteEncoder("miniature-context-v1", base_url=url))
    here = PplxEmbeddings("miniature")
    assert split.embed_query("here") == here.embed_query("here")
    assert split.usage.total_tokens == 0
    same(split.encode_documents([TEXTS]), here.encode_documents([TEXTS]))
    assert split.usage.total_tokens > 0


# LangChain.


class _Remote:
    @pytest.fixture(autouse=True)
    def _served(self, url: str) -> None:
        type(self).url = url

    url = "http://127.0.0.1:9"  # the unit suite makes objects before there is a server, and asks nobody

    @property
    def embeddings_class(self) -> type[PplxEmbeddings]:
        return PplxEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "miniature", "base_url": self.url, "api_key": KEY}


class TestUnit(_Remote, EmbeddingsUnitTests):
    pass


class TestIntegration(_Remote, EmbeddingsIntegrationTests):
    pass


@pytest.fixture
def hard() -> list[list[str]]:
    """Documents that end with the same footer, with a chunk that is twice in its document."""
    documents = []
    for number in range(6):
        chunks = [f"Document {number}, paragraph {row}, speaks of item {number * row % 7}." for row in range(6)]
        chunks[4] = chunks[2]
        documents.append([*chunks, FOOTER])
    return documents


@pytest.fixture
def shuffled(hard: list[list[str]]) -> list[Document]:
    chunks = [
        Document(text, metadata={"source": f"doc-{number}", "chunk": row, "start_index": 100 * row})
        for number, texts in enumerate(hard)
        for row, text in enumerate(texts)
    ]
    random.Random(7).shuffle(chunks)
    return chunks


@pytest.fixture
def expected(hard: list[list[str]]) -> dict[tuple[str, int], list[float]]:
    matrices = PplxEmbeddings("miniature").embed_document_chunks(hard)
    return {(f"doc-{n}", row): vector for n, matrix in enumerate(matrices) for row, vector in enumerate(matrix)}


def held(store: InMemoryVectorStore) -> dict[tuple[str, int], list[float]]:
    return {(each["metadata"]["source"], each["metadata"]["chunk"]): each["vector"] for each in store.store.values()}


@pytest.mark.parametrize("way", ["add_documents", "documents block", "from_documents", "index_documents", "aadd"])
def test_the_hard_case(
    url: str, shuffled: list[Document], expected: dict[tuple[str, int], list[float]], way: str
) -> None:
    embeddings = PplxEmbeddings("miniature", base_url=url)
    store = InMemoryVectorStore(embeddings)
    if way == "add_documents":
        add_documents(store, shuffled, group_by="source")
    elif way == "documents block":
        with embeddings.documents(shuffled, group_by="source"):
            store.add_documents(shuffled)
    elif way == "from_documents":
        store = from_documents(InMemoryVectorStore, shuffled, embeddings, group_by="source")
    elif way == "aadd":

        async def add() -> None:
            with embeddings.documents(shuffled, group_by="source"):
                await store.aadd_documents(shuffled)

        asyncio.run(add())
    else:
        records = InMemoryRecordManager("hard")
        records.create_schema()
        index_documents(shuffled, records, store, group_by="source")
    assert held(store) == expected


def test_an_edited_document_is_replaced_as_a_whole(url: str) -> None:
    embeddings, here = PplxEmbeddings("miniature", base_url=url), PplxEmbeddings("miniature")
    splitter = RecursiveCharacterTextSplitter(chunk_size=25, chunk_overlap=0, separators=["\n"], keep_separator=False)
    store, records = InMemoryVectorStore(embeddings), InMemoryRecordManager("edits")
    records.create_schema()
    first = [
        Document("One chunk of the first.\nAnother chunk.\n" + FOOTER, id="a"),
        Document("Second.\n" + FOOTER, id="b"),
    ]
    assert index_documents(first, records, store, splitter=splitter)["num_added"] == 5
    spent = embeddings.usage.total_tokens
    assert index_documents(first, records, store, splitter=splitter)["num_skipped"] == 5
    assert embeddings.usage.total_tokens == spent  # what is there already is not paid for again
    edited = [Document("One chunk, edited.\nAnother chunk.\n" + FOOTER, id="a"), first[1]]
    index_documents(edited, records, store, splitter=splitter)
    vectors = {
        each["text"]: each["vector"] for each in store.store.values() if each["metadata"]["pplx_document"] == "a"
    }
    [wanted] = here.embed_document_chunks([["One chunk, edited.", "Another chunk.", FOOTER]])
    assert list(vectors.values()) == wanted


def test_a_server_that_dies_in_the_middle_of_a_job_loses_nothing(
    local: dict[str, Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`index_documents` goes on where it was, against a server that was started again at the same address."""

    async def sleep(_: float) -> None:
        pass

    monkeypatch.setattr(transport, "_sleep", sleep)
    notes = [[f"Note {number} is about the number {number}.", FOOTER] for number in range(30)]
    chunks = [Document(text, metadata={"source": f"{n}.md"}) for n, note in enumerate(notes) for text in note]
    records = InMemoryRecordManager("killed")
    records.create_schema()
    models = {"miniature-context-v1": local["miniature-context-v1"]}

    with serving(models) as served:
        port = served.port
        side = RemoteEncoder("miniature-context-v1", base_url=served.url)
        store = InMemoryVectorStore(PplxEmbeddings(side))

        def loader() -> Iterator[Document]:
            for number, chunk in enumerate(chunks):
                if number == 40:
                    served.server.should_exit = True
                    served.thread.join()
                yield chunk

        with pytest.raises(ServerError, match=r"cannot be reached .* Not embedded: "):
            index_documents(loader(), records, store, group_by="source", batch_size=10)
    kept = len(store.store)
    assert 30 <= kept < 60
    with serving(models, port=port):
        done = index_documents(chunks, records, store, group_by="source", batch_size=10)
    assert (done["num_skipped"], done["num_added"]) == (kept, 60 - kept)
    tokens = PplxEncoder("miniature-context-v1").count_tokens([text for note in notes for text in note])
    assert side.usage.total_tokens == sum(tokens)  # what was there is not embedded again
    found = sorted((each["text"], each["vector"]) for each in store.store.values())
    matrices = PplxEmbeddings("context-v1-0.6b", query_model=models["miniature-context-v1"],
                              document_model=models["miniature-context-v1"]).embed_document_chunks(notes)  # fmt: skip
    assert found == sorted(
        (text, vector)
        for note, matrix in zip(notes, matrices, strict=True)
        for text, vector in zip(note, matrix, strict=True)
    )


# LlamaIndex.


def test_an_index_of_llama_index(url: str, hard: list[list[str]]) -> None:
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

    def nodes() -> list[TextNode]:
        made = [
            TextNode(
                id_=f"{number}-{row}",
                text=text,
                start_char_idx=100 * row,
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{number}")},
            )
            for number, texts in enumerate(hard)
            for row, text in enumerate(texts)
        ]
        random.Random(3).shuffle(made)
        return made

    found, wanted = nodes(), nodes()
    PplxEmbedding("miniature", base_url=url)(found)
    PplxEmbedding("miniature")(wanted)
    assert [node.embedding for node in found] == [node.embedding for node in wanted]
    again = nodes()
    asyncio.run(PplxEmbedding("miniature", base_url=url, embed_batch_size=5).acall(again))
    assert [node.embedding for node in again] == [node.embedding for node in wanted]


def test_a_contextual_index(url: str) -> None:
    from llama_index.core import Document as LlamaDocument

    documents = [
        LlamaDocument(text="Mars. The fourth planet from the Sun.\n\nIt has two small moons.", id_="mars"),
        LlamaDocument(text="Saturn. The sixth planet from the Sun.\n\nIt has 274 known moons.", id_="saturn"),
    ]
    indexes = [
        contextual_index(documents, embed_model=PplxEmbedding("miniature", **o)) for o in ({}, {"base_url": url})
    ]
    held = [sorted(index.vector_store.data.embedding_dict.values()) for index in indexes]
    assert held[0] == held[1]
    [best, *_] = indexes[1].as_retriever(similarity_top_k=1).retrieve("How many moons does Saturn have?")
    assert best.node.ref_doc_id == "saturn"
    copied = PplxEmbedding("miniature", base_url=url).model_copy(update={"dimensions": 99})
    assert len(copied.get_text_embedding("a text")) == 99
