"""Calls for one document run one after the other, in tasks, threads and event loops; asynchronous stores suffice."""

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from llama_index.core import Document
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import AsyncQdrantClient

from pplx_embed_integrations import InputError
from pplx_embed_integrations.flow import arun, run
from pplx_embed_integrations.llama_index import PplxEmbedding, acontextual_index, contextual_index
from pplx_embed_integrations.llama_index.turns import Turns
from tests.llama_index.cases import (
    FOUR,
    SPLITTER,
    assert_same_vectors,
    expected_vectors,
    hard_documents,
    make_store,
    read_back,
)


def parts(document):
    nodes = SPLITTER([document])
    for node in nodes:
        node.relationships = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document.id_)}
    return nodes


@pytest.mark.parametrize("kind", ["default", "qdrant", "chroma"])
async def test_parts_that_arrive_at_once_give_what_one_call_gives(kind, fake_model: PplxEmbedding, tmp_path):
    documents = hard_documents(2)
    store = make_store(kind, tmp_path)
    index = contextual_index([], embed_model=fake_model, vector_store=store.vector_store, splitter=SPLITTER)
    await asyncio.gather(*(index.ainsert_nodes([node]) for document in documents for node in parts(document)[:5]))
    await asyncio.gather(
        index.ainsert_nodes(parts(documents[0])[5:]), *(index.ainsert_nodes([n]) for n in parts(documents[1])[5:])
    )
    assert_same_vectors(store.read([]), expected_vectors(fake_model, documents))


@pytest.mark.parametrize("kind", FOUR)
async def test_documents_that_arrive_at_once(kind, fake_model: PplxEmbedding, tmp_path):
    documents = hard_documents(6)
    store = make_store(kind, tmp_path)
    index = contextual_index([], embed_model=fake_model, vector_store=store.vector_store, splitter=SPLITTER)
    await asyncio.gather(*(index.ainsert(document) for document in documents))
    assert_same_vectors(read_back(index, store), expected_vectors(fake_model, documents))


@pytest.mark.parametrize("kind", ["default", "qdrant", "chroma"])
def test_inserts_and_deletions_in_threads_neither_clash_nor_wait_for_each_other(kind, fake_model, tmp_path):
    documents = hard_documents(4)
    store = make_store(kind, tmp_path)
    index = contextual_index(documents[:1], embed_model=fake_model, vector_store=store.vector_store, splitter=SPLITTER)

    def work(number):
        if number % 4 == 3:
            index.delete_ref_doc("report-0")
        else:
            index.insert(documents[number % 4])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16), timeout=120))
    index.insert(documents[0])
    assert_same_vectors(store.read([]), expected_vectors(fake_model, documents[:3]))


@pytest.mark.parametrize("kind", ["default", "qdrant", "chroma"])
def test_threads_and_their_event_loops_do_too(kind, fake_model: PplxEmbedding, tmp_path):
    documents = hard_documents(2)
    store = make_store(kind, tmp_path)
    index = contextual_index([], embed_model=fake_model, vector_store=store.vector_store, splitter=SPLITTER)

    def work(number, node):
        if number % 2:
            asyncio.run(index.ainsert_nodes([node]))
        else:
            index.insert_nodes([node])

    nodes = [node for document in documents for node in parts(document)]  # offsets tell their order
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work, number, node) for number, node in enumerate(nodes)]:
            done.result(timeout=100)
    assert_same_vectors(store.read([]), expected_vectors(fake_model, documents))


async def test_an_asynchronous_client_is_enough(fake_model: PplxEmbedding):
    client = AsyncQdrantClient(":memory:")
    store = QdrantVectorStore(collection_name="chunks", aclient=client)
    documents = hard_documents(3)

    async def read():
        points, _ = await client.scroll("chunks", limit=100, with_vectors=True)
        return {str(point.id): point.vector for point in points}

    options = {"embed_model": fake_model, "vector_store": store, "splitter": SPLITTER}
    with pytest.raises(InputError, match=r"only an asynchronous client: write await acontextual_index"):
        contextual_index(documents, **options)
    index = await acontextual_index(documents[:2], **options)
    assert_same_vectors(await read(), expected_vectors(fake_model, documents[:2]))
    with pytest.raises(InputError, match=r"await index.ainsert"):
        index.insert(documents[2])
    await index.ainsert(documents[2])
    moved = Document(id_="report-1", text=documents[1].text.replace("Part 5", "Another"))
    assert await index.arefresh_ref_docs([documents[0], moved, documents[2]]) == [False, True, False]
    await index.adelete_ref_doc("report-0")
    assert_same_vectors(await read(), expected_vectors(fake_model, [moved, documents[2]]))
    assert len(await index.as_retriever(similarity_top_k=9).aretrieve("river")) == 9
    again = await acontextual_index([moved], **options)  # a second run
    await again.ainsert_nodes([TextNode(text="late", relationships=SPLITTER([moved])[0].relationships)])
    assert len(await read()) == 23


def test_a_blocking_call_may_use_the_asynchronous_methods(fake_model: PplxEmbedding, tmp_path):
    documents = hard_documents(2)
    store = make_store("qdrant", tmp_path)
    index = contextual_index(
        documents[:1], embed_model=fake_model, vector_store=store.vector_store, splitter=SPLITTER, use_async=True
    )
    index.insert(documents[1])
    assert_same_vectors(store.read([]), expected_vectors(fake_model, documents))


async def test_a_call_that_would_wait_for_its_own_loop_is_refused():
    turns = Turns()
    with await arun(turns.take(["a", "b"])), pytest.raises(InputError, match="method whose name starts with an a"):
        run(turns.take(["b"]))
    with run(turns.take(["b"])):
        assert len(turns._queue) == 1


async def test_so_is_one_that_would_wait_for_a_thread_that_waits_for_its_own_loop():
    turns = Turns()
    first = await arun(turns.take(["a"]))
    with ThreadPoolExecutor(1) as pool:
        between = pool.submit(lambda: run(turns.take(["a", "b"])))
        while len(turns._queue) < 2:
            await asyncio.sleep(0.001)
        with first, pytest.raises(InputError, match="method whose name starts with an a"):
            run(turns.take(["b"]))
        between.result(timeout=10).close()


async def test_turns_are_first_come_first_served_and_survive_a_cancelled_one():
    turns, order = Turns(), []

    async def work(name):
        with await arun(turns.take(["a"])):
            order.append(name)

    with await arun(turns.take(["a"])):
        tasks = [asyncio.create_task(work(name)) for name in "123"]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["1", "3"]
    assert not turns._queue


@pytest.mark.filterwarnings("ignore:.*no text any more:pplx_embed_integrations.ContextWarning")
def test_an_emptied_document_waits_its_turn(fake_model: PplxEmbedding):
    index = contextual_index(hard_documents(1), embed_model=fake_model, splitter=SPLITTER)
    with ThreadPoolExecutor(1) as pool:
        with run(index._turns.take(["report-0"])):
            emptied = pool.submit(index.insert, Document(id_="report-0", text=""))
            while len(index._turns._queue) < 2 and not emptied.done():
                time.sleep(0.001)
            assert len(index.vector_store.data.embedding_dict) == 11
        emptied.result(timeout=30)
    assert not index.vector_store.data.embedding_dict


FIRST_CALLS = """
import asyncio, sys, threading
from llama_index.core import Document
from pplx_embed_integrations.llama_index import PplxEmbedding, acontextual_index, contextual_index

class Seen(ImportError):
    pass

class Spy:
    # Torch is not imported: which thread would do it first is what matters.
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            on_the_loop.append(threading.current_thread() is threading.main_thread())
            raise Seen(name)

sys.meta_path.insert(0, Spy())
empty = PplxEmbedding()  # not on this machine, and never asked for
assert empty.get_text_embedding_batch([]) == [] == asyncio.run(empty.aget_text_embedding_batch([]))
assert empty([]) == [] == asyncio.run(empty.acall([]))
contextual_index([], embed_model=empty)
assert not {"torch", "sentence_transformers"} & set(sys.modules)
documents = [Document(text="one")]
calls = {
    "query": lambda model: model.aget_query_embedding("one"),
    "text": lambda model: model.aget_text_embedding("one"),
    "nodes": lambda model: model.acall(documents),
    "index": lambda model: acontextual_index(documents, embed_model=model),
}
for name, call in calls.items():
    on_the_loop = []
    try:
        asyncio.run(call(PplxEmbedding("miniature")))
    except Seen:
        assert on_the_loop == [False], name
    else:
        sys.exit(f"{name} did without torch")
"""


def test_the_event_loop_is_free_from_the_first_call_on_and_empty_lists_load_nothing():
    done = subprocess.run([sys.executable, "-c", FIRST_CALLS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
