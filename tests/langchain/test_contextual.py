"""The documents(...) block: grouping, order, resolution, threads, tasks and what it releases."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.stores import BaseStore, InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore

from pplx_embed_integrations.errors import ContextWarning, InputError, InputTypeError
from pplx_embed_integrations.langchain import add_documents, from_documents
from pplx_embed_integrations.langchain.contextual import Scope, open_scope

# Most tests ask for a few chunks only; test_warnings.py sees that this is warned about.
pytestmark = pytest.mark.filterwarnings("ignore:.*were not embedded inside the block")


def chunks_of(*documents: list[str], key: str = "source") -> list[Document]:
    return [Document(text, metadata={key: n}) for n, texts in enumerate(documents) for text in texts]


def texts_of(chunks: list[Document]) -> list[str]:
    return [chunk.page_content for chunk in chunks]


def close(found: object, expected: object) -> None:
    """Other batches may move a float over a rounding border: int8 codes at most one apart."""
    np.testing.assert_allclose(found, expected, atol=0.006)


A, B = ["alpha one", "alpha two", "alpha three"], ["beta one", "beta two"]


@pytest.fixture
def wanted(embeddings):
    [a, b] = embeddings.embed_document_chunks([A, B])
    return a + b


def test_flat_lists_are_contextual_inside_and_independent_outside(embeddings, wanted):
    chunks = chunks_of(A, B)
    alone = embeddings.embed_documents(A + B)
    with embeddings.documents(chunks, group_by="source"):
        close(embeddings.embed_documents(texts_of(chunks)), wanted)
    close(embeddings.embed_documents(texts_of(chunks)), alone)
    assert np.abs(np.subtract(alone, wanted)).max() > 0.02


@pytest.mark.parametrize(
    "group_by",
    ["source", lambda chunk: chunk.page_content.split()[0], ["a", "a", "a", "b", "b"], (1, 1, 1, 2, 2)],
    ids=["key", "callable", "list", "tuple"],
)
def test_group_by(embeddings, wanted, group_by):
    chunks = chunks_of(A, B)
    with embeddings.documents(chunks, group_by=group_by):
        close(embeddings.embed_documents(texts_of(chunks)), wanted)


@pytest.mark.parametrize(
    ("group_by", "error", "message"),
    [
        (None, InputError, r"pass splitter=.*pass group_by=.*All 2 chunks carry \(with so many values\): 'n' \(2\)"),
        ("source", InputError, "document 0 has no 'source'"),
        (["a"], InputError, "1 keys for 2 chunks"),
        (5, InputTypeError, "not int"),
        (
            [["a"], {"b": lambda: 0}],
            InputTypeError,
            "document 1 cannot be a document's key: an object of type function has",
        ),
    ],
)
def test_grouping_errors_say_what_to_pass(embeddings, group_by, error, message):
    chunks = [Document("one", metadata={"n": 1}), Document("two", metadata={"n": 2})]
    with pytest.raises(error, match=message), embeddings.documents(chunks, group_by=group_by):
        pass


@pytest.mark.parametrize("documents", [None, "bare", b"x", Document("one"), ["text"], [None]], ids=repr)
def test_anything_but_documents_is_refused(embeddings, documents):
    with pytest.raises(InputTypeError), embeddings.documents(documents):
        pass
    store = InMemoryVectorStore(embeddings)
    with pytest.raises(InputTypeError):
        add_documents(store, documents)
    with pytest.raises(InputTypeError):
        from_documents(InMemoryVectorStore, documents, embeddings)


def test_a_block_takes_no_iterator_that_it_would_use_up(embeddings):
    with pytest.raises(InputTypeError, match="used up"), embeddings.documents(iter(chunks_of(A)), group_by="source"):
        pass
    assert len(add_documents(InMemoryVectorStore(embeddings), iter(chunks_of(A)), group_by="source")) == 3


def test_nothing_to_add_is_fine(embeddings):
    assert add_documents(InMemoryVectorStore(embeddings), []) == []


def test_start_index_orders_within_pages(embeddings):
    reading = ["page one top", "page one end", "page two top", "page two end"]
    places = [(0, 0), (0, 50), (1, 0), (1, 50)]
    chunks = [
        Document(text, metadata={"source": 1, "page": page, "start_index": start})
        for text, (page, start) in zip(reading, places, strict=True)
    ]
    [expected] = embeddings.embed_document_chunks([reading])
    shuffled = [chunks[i] for i in (2, 0, 3, 1)]
    with embeddings.documents(shuffled, group_by="source"):
        close(embeddings.embed_documents(texts_of(shuffled)), [expected[i] for i in (2, 0, 3, 1)])


def test_equal_chunks_are_told_apart_even_when_a_store_asks_for_some_of_them_only(embeddings):
    footer = "the same footer"
    documents = [[f"text {n}", footer] for n in range(6)]
    chunks = chunks_of(*documents)
    assert len({id(chunk.page_content) for chunk in chunks[1::2]}) == 1
    expected = [vector for document in embeddings.embed_document_chunks(documents) for vector in document]
    with embeddings.documents(chunks, group_by="source"):
        for position in (11, 5, 7, 1):  # by identity, so in any order
            close(embeddings.embed_documents([chunks[position].page_content]), [expected[position]])


def test_where_identity_is_lost_text_decides_then_order(embeddings):
    footer = "the same footer"
    documents = [["text 0", footer], ["text 1", footer]]
    chunks = chunks_of(*documents)
    expected = [vector for document in embeddings.embed_document_chunks(documents) for vector in document]
    with embeddings.documents(chunks, group_by="source"), pytest.warns(ContextWarning, match="2 chunks .* same text"):
        # For two stores in the same block.
        found = [embeddings.embed_documents([(text + " ")[:-1] for text in texts_of(chunks)]) for _ in range(2)]
    close(found, [expected] * 2)


def test_unknown_texts_stand_alone_with_one_warning(embeddings, wanted):
    chunks = chunks_of(A, B)
    alone = embeddings.embed_documents(["unknown"])
    with embeddings.documents(chunks, group_by="source"):
        with pytest.warns(ContextWarning, match="no chunks of the documents"):
            found = embeddings.embed_documents([A[0], "unknown", B[0]])
        close(found, [wanted[0], alone[0], wanted[3]])
        close(embeddings.embed_documents(["another one", "unknown"])[1], alone[0])  # a second warning would be an error


def test_unknown_texts_can_be_an_error(embeddings):
    with embeddings.documents(chunks_of(A, B), group_by="source", on_miss="error"):
        embeddings.embed_documents([A[0]])
        with pytest.raises(InputError, match="no chunks of the documents"):
            embeddings.embed_documents([A[1], "unknown"])
    with pytest.raises(InputError, match="on_miss"), embeddings.documents([], on_miss="ignore"):
        pass


def test_probes_of_stores_are_not_reported(embeddings):
    with embeddings.documents(chunks_of(A), group_by="source", on_miss="error"):
        embeddings.embed_documents(["how wide are you"])  # once, before any chunk
        embeddings.embed_documents([A[0]])
        embeddings.embed_documents(["dummy_text"])  # Qdrant's, at any time


def test_blocks_nest(embeddings):
    outer, inner = chunks_of(A), chunks_of(B)
    [a, b] = embeddings.embed_document_chunks([A, B])
    with embeddings.documents(outer, group_by="source", on_miss="error"):
        with embeddings.documents(inner, group_by="source", on_miss="error"):
            close(embeddings.embed_documents([*texts_of(inner), *texts_of(outer)]), b + a)
        close(embeddings.embed_documents(texts_of(outer)), a)
        with pytest.raises(InputError):
            embeddings.embed_documents(texts_of(inner))


def test_the_inner_block_wins_for_equal_texts(embeddings):
    outer, inner = chunks_of([*A, "shared text!"[:-1]]), chunks_of([*B, "shared text!"[:-1]])
    [a, b] = embeddings.embed_document_chunks([[*A, "shared text"], [*B, "shared text"]])
    copy = "shared text "[:-1]
    assert len({id(copy), id(outer[-1].page_content), id(inner[-1].page_content)}) == 3
    with embeddings.documents(outer, group_by="source"), embeddings.documents(inner, group_by="source"):
        close(embeddings.embed_documents([copy]), [b[-1]])
        close(embeddings.embed_documents([outer[-1].page_content]), [a[-1]])  # this very chunk


def test_another_embeddings_object_is_not_concerned(embeddings, new_embeddings):
    other = new_embeddings()
    alone = other.embed_documents(A)
    with embeddings.documents(chunks_of(A), group_by="source"):
        close(other.embed_documents(A), alone)


def test_each_document_is_embedded_once_and_only_when_asked_for(counting):
    embeddings = counting()
    chunks = chunks_of(A, B)
    with embeddings.documents(chunks, group_by="source"):
        assert embeddings.encoded == []
        for text in texts_of(chunks)[:3]:
            embeddings.embed_documents([text])
        assert embeddings.encoded == [tuple(A)]
        embeddings.embed_documents(texts_of(chunks))
    assert embeddings.encoded == [tuple(A), tuple(B)]


def test_many_threads_get_the_same_vectors(counting):
    embeddings = counting()
    documents = [[f"document {n} chunk {row}" for row in range(4)] for n in range(10)]
    chunks = chunks_of(*documents)
    with embeddings.documents(chunks, group_by="source", on_miss="error"), ThreadPoolExecutor(16) as pool:
        jobs = [
            pool.submit(contextvars.copy_context().run, embeddings.embed_documents, [chunk.page_content])
            for chunk in chunks * 3
        ]
        found = [job.result()[0] for job in jobs]
    assert set(embeddings.encoded) == set(map(tuple, documents))
    close(found[:40], found[40:80])
    close(found[:40], found[80:])


async def test_many_tasks_get_the_same_vectors(counting):
    embeddings = counting()
    documents = [[f"document {n} chunk {row}" for row in range(4)] for n in range(10)]
    chunks = chunks_of(*documents)
    with embeddings.documents(chunks, group_by="source", on_miss="error"):
        mixed = [
            embeddings.aembed_documents([text]) if n % 2 else asyncio.to_thread(embeddings.embed_documents, [text])
            for n, text in enumerate(texts_of(chunks) * 2)
        ]
        found = [vectors[0] for vectors in await asyncio.gather(*mixed)]
    assert set(embeddings.encoded) == set(map(tuple, documents))
    close(found[:40], found[40:])


class SlowStore(InMemoryByteStore):
    """Takes its time, in a thread of the loop's executor in asynchronous calls, as `BaseStore` does by default."""

    amget, amset = BaseStore.amget, BaseStore.amset

    def mget(self, keys):
        time.sleep(0.05)
        return super().mget(keys)


class OwnAsyncStore(SlowStore):
    """Comes to the same, but only it knows that."""

    async def amget(self, keys):
        return await asyncio.to_thread(self.mget, keys)

    async def amset(self, items):
        return await asyncio.to_thread(self.mset, items)


@pytest.mark.parametrize("store", [None, SlowStore, OwnAsyncStore])
def test_tasks_go_on_while_every_thread_of_the_loop_waits_for_them(counting, wanted, store):
    embeddings = counting(cache=store and store())
    chunks = chunks_of(A, B)

    async def work():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        task = asyncio.create_task(embeddings.aembed_documents(texts_of(chunks)))
        await asyncio.sleep(0)  # it has begun
        thread = asyncio.to_thread(embeddings.embed_documents, texts_of(chunks))
        return await asyncio.wait_for(asyncio.gather(task, thread), 30)

    with embeddings.documents(chunks, group_by="source"):
        for found in asyncio.run(work()):
            close(found, wanted)
    assert set(embeddings.encoded) <= {tuple(A), tuple(B)}


async def test_a_synchronous_call_on_the_loop_does_not_wait_for_a_task_of_the_loop(embeddings, wanted):
    chunks = chunks_of(A, B)
    with embeddings.documents(chunks, group_by="source"):
        task = asyncio.create_task(embeddings.aembed_documents(texts_of(chunks)))
        await asyncio.sleep(0)  # it has begun
        close(embeddings.embed_documents(texts_of(chunks)), wanted)
        close(await task, wanted)


async def test_cancelling_one_task_leaves_the_others_alone(embeddings, wanted):
    chunks = chunks_of(A, B)
    with embeddings.documents(chunks, group_by="source"):
        first = asyncio.create_task(embeddings.aembed_documents(texts_of(chunks)))
        second = asyncio.create_task(embeddings.aembed_documents(texts_of(chunks)))
        await asyncio.sleep(0)
        first.cancel()
        close(await second, wanted)


def test_a_failure_reaches_its_caller_and_a_later_try_succeeds(new_embeddings, wanted):
    embeddings = new_embeddings()
    encode = embeddings._biencoder.encode_documents
    chunks = chunks_of(A, B)

    def fail(documents):
        raise MemoryError

    with embeddings.documents(chunks, group_by="source"):
        embeddings._biencoder.encode_documents = fail
        with pytest.raises(MemoryError):
            embeddings.embed_documents(texts_of(chunks))
        embeddings._biencoder.encode_documents = encode
        close(embeddings.embed_documents(texts_of(chunks)), wanted)


def test_a_thread_that_does_not_inherit_the_block_warns_instead_of_losing_context_silently(embeddings):
    chunks = chunks_of(A)
    alone = embeddings.embed_documents(A)
    with embeddings.documents(chunks, group_by="source"):
        with pytest.warns(ContextWarning, match="copy_context"), ThreadPoolExecutor(1) as pool:
            close(pool.submit(embeddings.embed_documents, texts_of(chunks)).result(), alone)
        with warnings.catch_warnings(), ThreadPoolExecutor(1) as pool:
            warnings.simplefilter("error")  # other texts of other threads are none of the block's business
            pool.submit(embeddings.embed_documents, ["unrelated"]).result()


async def test_a_task_that_outlives_the_block_warns(embeddings):
    ended = asyncio.Event()

    async def late():
        await ended.wait()
        return await embeddings.aembed_documents(A)

    with embeddings.documents(chunks_of(A), group_by="source"):
        task = asyncio.create_task(late())
    ended.set()
    with pytest.warns(ContextWarning, match="outlived"):
        close(await task, embeddings.embed_documents(A))


def test_blocks_of_threads_do_not_mix(embeddings):
    barrier = threading.Barrier(4)

    def work(number):
        chunks = chunks_of([f"only here {number}", "a chunk that all share"])
        with embeddings.documents(chunks, group_by="source", on_miss="error"):
            barrier.wait(30)
            found = embeddings.embed_documents(texts_of(chunks))
            barrier.wait(30)
        return found

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(4)))
    for number, vectors in enumerate(found):
        [expected] = embeddings.embed_document_chunks([[f"only here {number}", "a chunk that all share"]])
        close(vectors, expected)


def test_everything_is_released_at_the_end(embeddings):
    class Marked(str):
        pass  # plain strings cannot be watched

    text = Marked("a chunk to be forgotten")
    watch = weakref.ref(text)
    with open_scope(Scope(embeddings, [[text]], [(0, 0)])) as scope:
        embeddings.embed_documents([text])
        kept = contextvars.copy_context()  # as a task that goes on for ever keeps it
    del text
    gc.collect()
    assert watch() is None
    assert scope.closed
    assert kept is not None


def test_the_block_ends_with_an_exception_too(embeddings):
    alone = embeddings.embed_documents(A)
    chunks = chunks_of(A)
    with pytest.raises(RuntimeError), embeddings.documents(chunks, group_by="source"):
        raise RuntimeError
    close(embeddings.embed_documents(texts_of(chunks)), alone)


def test_overlap_is_reported_once_with_the_setting_to_change(embeddings):
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    text = " ".join(f"Sentence number {n} says something about boats." for n in range(40))
    whole = [Document(text, metadata={"source": "boats"})]
    for with_offsets in (True, False):
        splitter = RecursiveCharacterTextSplitter(chunk_size=300, chunk_overlap=60, add_start_index=with_offsets)
        with pytest.warns(ContextWarning, match=r"'boats' share \d+ characters.*chunk_overlap=0") as caught:
            add_documents(InMemoryVectorStore(embeddings), splitter.split_documents(whole), group_by="source")
        assert len(caught) == 1
    splitter = RecursiveCharacterTextSplitter(chunk_size=300, chunk_overlap=0, add_start_index=True)
    add_documents(
        InMemoryVectorStore(embeddings), splitter.split_documents(whole), group_by="source"
    )  # a warning would be an error here


def test_a_store_that_embeds_with_something_else_is_named(embeddings, new_embeddings):
    from langchain_core.embeddings import DeterministicFakeEmbedding

    with pytest.raises(InputTypeError, match="DeterministicFakeEmbedding"):
        add_documents(InMemoryVectorStore(DeterministicFakeEmbedding(size=4)), chunks_of(A), group_by="source")
    with pytest.raises(InputError, match="another PplxEmbeddings"):
        add_documents(InMemoryVectorStore(new_embeddings()), chunks_of(A), group_by="source", embeddings=embeddings)
    with pytest.warns(ContextWarning, match="something else"):
        add_documents(
            InMemoryVectorStore(DeterministicFakeEmbedding(size=4)),
            chunks_of(A),
            group_by="source",
            embeddings=embeddings,
        )


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.sampled_from(["x y", "y z", "z w", "w v"]), min_size=1, max_size=4), min_size=1, max_size=5),
    st.data(),
)
def test_any_interleaving_of_any_documents_gives_every_chunk_its_vector(embeddings, documents, data):
    flat = [(n, row) for n, texts in enumerate(documents) for row in range(len(texts))]
    order = data.draw(st.permutations(flat))
    chunks = [Document(documents[n][row], metadata={"source": n, "start_index": 100 * row}) for n, row in order]
    expected = embeddings.embed_document_chunks(documents)
    with embeddings.documents(chunks, group_by="source", on_miss="error"):
        found = embeddings.embed_documents(texts_of(chunks))
    close(found, [expected[n][row] for n, row in order])
