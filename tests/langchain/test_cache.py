"""The document-aware cache: what it saves, and that the wrong vector can never come back."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.storage import LocalFileStore
from langchain_core.documents import Document
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore

from pplx_embed_integrations.errors import ContextWarning, InputError
from pplx_embed_integrations.langchain import aadd_documents, add_documents, from_documents, index_documents

DOCUMENTS = [["alpha one", "the footer"], ["beta one", "beta two", "the footer"]]


def chunks_of(documents):
    return [Document(text, metadata={"source": n}) for n, texts in enumerate(documents) for text in texts]


def test_what_comes_back_is_what_was_embedded(counting, byte_store, embeddings):
    expected = embeddings.embed_document_chunks(DOCUMENTS)
    first = counting(cache=byte_store)
    assert first.embed_document_chunks(DOCUMENTS) == expected
    assert len(first.encoded) == 2
    again = counting(cache=byte_store)
    assert again.embed_document_chunks(DOCUMENTS) == expected
    assert asyncio.run(again.aembed_document_chunks(DOCUMENTS)) == expected
    assert again.encoded == []


def test_async_fills_the_same_cache(counting, byte_store):
    first, again = counting(cache=byte_store), counting(cache=byte_store)
    expected = asyncio.run(first.aembed_document_chunks(DOCUMENTS))
    assert again.embed_document_chunks(DOCUMENTS) == expected
    assert (len(first.encoded), again.encoded) == (2, [])


def test_equal_chunks_of_two_documents_keep_their_own_vectors(counting, byte_store):
    for _ in range(2):
        [one, two] = counting(cache=byte_store).embed_document_chunks(DOCUMENTS)
        assert one[-1] != two[-1]


def test_texts_alone_are_cached_as_documents_of_one_chunk(new_embeddings, byte_store, embeddings, monkeypatch):
    texts = ["one", "two", "one"]
    expected = embeddings.embed_documents(texts)
    assert new_embeddings(cache=byte_store).embed_documents(texts) == expected
    assert len(list(byte_store.yield_keys())) == 2
    again = new_embeddings(cache=byte_store)
    monkeypatch.setattr(again._biencoder, "encode_texts", None)
    assert again.embed_documents(texts) == expected
    assert again.embed_document_chunks([["one"]])[0][0] == expected[0]


def test_changing_one_chunk_embeds_its_document_alone_again(counting, byte_store):
    counting(cache=byte_store).embed_document_chunks(DOCUMENTS)
    embeddings = counting(cache=byte_store)
    embeddings.embed_document_chunks([DOCUMENTS[0], ["beta one", "beta 2", "the footer"]])
    assert embeddings.encoded == [("beta one", "beta 2", "the footer")]


@pytest.mark.parametrize(
    "options",
    [
        {"dimensions": 16},
        {"quantization": "binary"},
        {"quantization": None},
        {"dtype": "bfloat16"},
        {"backend": "openvino"},
        {"max_tokens": 64},
        {"truncate": True},
    ],
    ids=str,
)
def test_every_option_that_changes_a_vector_has_its_own_entries(counting, byte_store, options):
    counting(cache=byte_store).embed_document_chunks(DOCUMENTS)
    other, uncached = counting(cache=byte_store, **options), counting(**options)
    assert other.embed_document_chunks(DOCUMENTS) == uncached.embed_document_chunks(DOCUMENTS)
    assert len(other.encoded) == 2


def test_what_changes_no_document_vector_shares_entries(counting, byte_store, replica_context_v1):
    counting(cache=byte_store).embed_document_chunks(DOCUMENTS)
    for options in (
        {"normalize": False},
        {"query_model": replica_context_v1},
        {"batch_tokens": 64},
        {"attention": "blocked"},
    ):
        other = counting(cache=byte_store, **options)
        assert other.embed_document_chunks(DOCUMENTS) == counting(**options).embed_document_chunks(DOCUMENTS)
        assert other.encoded == []


def test_a_local_checkpoint_is_known_by_its_content(counting, byte_store, replica_context_v1, tmp_path):
    moved = shutil.copytree(replica_context_v1, tmp_path / "moved")
    counting(cache=byte_store).embed_document_chunks(DOCUMENTS)
    same = counting(cache=byte_store, document_model=moved)
    same.embed_document_chunks(DOCUMENTS)
    assert same.encoded == []
    weights = moved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1  # one bit of one weight: same size, same everything else
    weights.write_bytes(data)
    changed = counting(cache=byte_store, document_model=moved)
    changed.embed_document_chunks(DOCUMENTS)
    assert len(changed.encoded) == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "swapped", "pickle"])
def test_damaged_entries_are_embedded_again(counting, damage):
    store = InMemoryByteStore()
    expected = counting(cache=store).embed_document_chunks([["one"], ["two"]])
    keys = sorted(store.store)
    good = dict(store.store)
    if damage == "swapped":
        store.store = dict(zip(keys, [good[key] for key in reversed(keys)], strict=True))
    else:
        change = {
            "truncated": lambda value: value[:-3],
            "flipped": lambda value: value[:-1] + bytes([value[-1] ^ 1]),
            "empty": lambda value: b"",
            "pickle": lambda value: b"\x80\x04N.",
        }[damage]
        store.store = {key: change(value) for key, value in good.items()}
    again = counting(cache=store)
    assert again.embed_document_chunks([["one"], ["two"]]) == expected
    assert len(again.encoded) == 2
    assert store.store == good


def test_a_crash_loses_one_piece_at_most(counting, tmp_path, monkeypatch):
    monkeypatch.setattr("pplx_embed_integrations.langchain.cache._CHARACTERS_AT_ONCE", 200)
    documents = [[f"document {n} begins", f"document {n} ends"] for n in range(30)]
    broken = counting(cache=LocalFileStore(tmp_path))
    encode = broken._biencoder.encode_documents

    def fail_at_the_third(piece):
        if len(broken.encoded) >= 12:
            raise KeyboardInterrupt
        return encode(piece)

    broken._biencoder.encode_documents = fail_at_the_third
    with pytest.raises(KeyboardInterrupt):
        broken.embed_document_chunks(documents)
    kept = len(broken.encoded)
    assert 12 <= kept < 30
    assert len(list(LocalFileStore(tmp_path).yield_keys())) == kept
    resumed = counting(cache=LocalFileStore(tmp_path))
    assert resumed.embed_document_chunks(documents) == counting().embed_document_chunks(documents)
    assert resumed.encoded == [tuple(chunks) for chunks in documents[kept:]]


def test_it_serves_indexing_into_a_new_store(counting, tmp_path):
    first = counting(cache=LocalFileStore(tmp_path))
    add_documents(InMemoryVectorStore(first), chunks_of(DOCUMENTS), group_by="source")
    again = counting(cache=LocalFileStore(tmp_path))
    store = InMemoryVectorStore(again)
    asyncio.run(aadd_documents(store, chunks_of(DOCUMENTS), group_by="source"))
    assert again.encoded == []
    flat = [vector for document in first.embed_document_chunks(DOCUMENTS) for vector in document]
    assert [entry["vector"] for entry in store.store.values()] == flat


def wrap(embeddings):
    return CacheBackedEmbeddings.from_bytes_store(embeddings, InMemoryByteStore(), namespace="x", key_encoder="sha256")


def test_a_store_with_a_cache_by_text_is_refused(embeddings):
    wrapped = wrap(embeddings)
    store = InMemoryVectorStore(wrapped)
    chunks = chunks_of(DOCUMENTS)
    for call in (
        lambda: add_documents(store, chunks, group_by="source"),
        lambda: add_documents(store, chunks, group_by="source", embeddings=embeddings),
        lambda: asyncio.run(aadd_documents(store, chunks, group_by="source")),
        lambda: from_documents(InMemoryVectorStore, chunks, wrapped, group_by="source"),
        lambda: index_documents(chunks, None, store, group_by="source"),
    ):
        with pytest.raises(InputError, match=r"cache=byte_store"):
            call()


def test_a_cache_by_text_is_right_for_texts_by_themselves(embeddings):
    wrapped = wrap(embeddings)
    expected = embeddings.embed_documents(["one", "two"])
    assert wrapped.embed_documents(["one", "two"]) == expected
    assert asyncio.run(wrapped.aembed_documents(["two", "one"])) == expected[::-1]
    assert len(wrapped.embed_query("queries are not concerned")) == 32


def test_a_cache_by_text_that_answers_inside_a_block_is_noticed(embeddings):
    store = InMemoryVectorStore(wrap(embeddings))
    footer = "the same footer"
    for number in range(2):
        chunks = chunks_of([[f"document {number}", footer]])
        if number == 0:
            with embeddings.documents(chunks, group_by="source"):
                store.add_documents(chunks)
        else:
            with (
                pytest.warns(ContextWarning, match="1 of the 2 chunks .* cache"),
                embeddings.documents(chunks, group_by="source"),
            ):
                store.add_documents(chunks)


def test_a_cache_by_text_is_fine_around_a_model_for_single_texts(new_embeddings, replica_v1):
    plain = new_embeddings(document_model=replica_v1)
    assert wrap(plain).embed_documents(["one"]) == plain.embed_documents(["one"])
