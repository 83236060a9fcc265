"""Making a contextual index from documents, and opening one again.

Knows storage contexts, index stores and how their index structures are found; must not know nodes or vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core import StorageContext
from llama_index.core.callbacks import CallbackManager
from llama_index.core.data_structs.data_structs import IndexDict
from llama_index.core.node_parser import NodeParser
from llama_index.core.schema import Document, TransformComponent
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from ..errors import InputError, InputTypeError, warn
from .embedding import PplxEmbedding
from .held import vector_structures
from .index import ContextualVectorStoreIndex
from .intake import check_documents, transformations_of

_LOAD = "load_contextual_index(storage_context, embed_model=embed_model{})"


def contextual_index(
    documents: Sequence[Document],
    *,
    embed_model: PplxEmbedding | None = None,
    vector_store: BasePydanticVectorStore | None = None,
    storage_context: StorageContext | None = None,
    splitter: NodeParser | None = None,
    transformations: Sequence[TransformComponent] | None = None,
    callback_manager: CallbackManager | None = None,
    index_id: str | None = None,
    show_progress: bool = False,
    **index_options: Any,
) -> ContextualVectorStoreIndex:
    """Split documents, embed the chunks of each together, and index them in any vector store.

    All documents are checked before the first is embedded. They are embedded and stored some hundred chunks at a time,
    each in place of what the store has under its id, so that a call that was interrupted can be repeated.

    Args:
        documents: What to index; none, to open a store that is filled already.
        embed_model: A model whose document side is contextual; by default that of Settings.
        vector_store: Where the vectors go; by default LlamaIndex's store in memory.
        storage_context: The stores together, in place of `vector_store`.
        splitter: Cuts documents into chunks; by default that of Settings, else `SentenceSplitter(chunk_overlap=0)`.
            Chunks should not overlap: the model reads the neighbours anyway.
        transformations: Several parsers and extractors, in place of `splitter`. The embedding model need not be the
            last of them.
        callback_manager: LlamaIndex's callbacks; by default those of Settings.
        index_id: The index's name in the storage context; one that is there already is continued.
        show_progress: Show bars.
        **index_options: Passed to `VectorStoreIndex`, for example `store_nodes_override=True`.

    Returns:
        The index.

    Raises:
        InputError: Documents cannot be embedded (the message names all of them), arguments exclude each other, or the
            store holds vectors that belong to an index which has to be loaded.
        InputTypeError: `documents` holds something else, or `embed_model` is no `PplxEmbedding`.
        NotContextualError: The document side was not trained for chunks in context.

    Example:
        >>> from llama_index.core import Document
        >>> text = "Ada Lovelace wrote the first program. She called her method poetical science."
        >>> index = contextual_index([Document(text=text)], embed_model=PplxEmbedding("miniature"))
        >>> [found.text[:12] for found in index.as_retriever(similarity_top_k=1).retrieve("poetical science")]
        ['Ada Lovelace']
    """
    options = _options(documents, embed_model, vector_store, storage_context, splitter, transformations, index_id)
    return ContextualVectorStoreIndex.from_documents(
        documents, callback_manager=callback_manager, show_progress=show_progress, **options, **index_options
    )


async def acontextual_index(
    documents: Sequence[Document],
    *,
    embed_model: PplxEmbedding | None = None,
    vector_store: BasePydanticVectorStore | None = None,
    storage_context: StorageContext | None = None,
    splitter: NodeParser | None = None,
    transformations: Sequence[TransformComponent] | None = None,
    callback_manager: CallbackManager | None = None,
    index_id: str | None = None,
    show_progress: bool = False,
    **index_options: Any,
) -> ContextualVectorStoreIndex:
    """`contextual_index` without blocking the event loop while it loads, splits and embeds.

    Uses the asynchronous methods of the stores, so that one with nothing but an asynchronous client will do.
    """
    options = _options(documents, embed_model, vector_store, storage_context, splitter, transformations, index_id)
    return await ContextualVectorStoreIndex.afrom_documents(
        documents, callback_manager=callback_manager, show_progress=show_progress, **options, **index_options
    )


def load_contextual_index(
    storage_context: StorageContext,
    *,
    embed_model: PplxEmbedding | None = None,
    index_id: str | None = None,
    splitter: NodeParser | None = None,
    transformations: Sequence[TransformComponent] | None = None,
    callback_manager: CallbackManager | None = None,
    **index_options: Any,
) -> ContextualVectorStoreIndex:
    """Open an index that was saved, to search it and to go on with it: what is inserted is contextual, too.

    `load_index_from_storage` gives a plain `VectorStoreIndex`, which embeds bare nodes without their context.

    Args:
        storage_context: `StorageContext.from_defaults(persist_dir=...)`, with `vector_store=...` where the vectors are
            elsewhere than in LlamaIndex's own store.
        embed_model: The model that the index was made with; by default that of Settings.
        index_id: Which index, if the storage context holds several.
        splitter: What later documents are cut with; as for `contextual_index`.
        transformations: Several parsers and extractors, in place of `splitter`.
        callback_manager: LlamaIndex's callbacks.
        **index_options: Passed to `VectorStoreIndex`; `store_nodes_override=True` if it was made so.

    Returns:
        The index.

    Raises:
        InputError: There is no such index, or there are several.
        InputTypeError: `storage_context` or `embed_model` is something else.

    Example:
        >>> import tempfile
        >>> from llama_index.core import Document
        >>> embed_model, folder = PplxEmbedding("miniature"), tempfile.mkdtemp()
        >>> index = contextual_index([Document(text="Ada wrote the first program.")], embed_model=embed_model)
        >>> index.storage_context.persist(folder)
        >>> again = load_contextual_index(StorageContext.from_defaults(persist_dir=folder), embed_model=embed_model)
        >>> [found.text for found in again.as_retriever().retrieve("Who wrote a program?")]
        ['Ada wrote the first program.']
    """
    if not isinstance(storage_context, StorageContext):
        raise InputTypeError(
            f"storage_context must be a StorageContext, not {type(storage_context).__name__}; write "
            "StorageContext.from_defaults(persist_dir='folder')"
        )
    structure = _structure(storage_context, index_id)
    if structure is None and not storage_context.vector_store.stores_text:
        raise InputError(
            "the storage context holds no vector index"
            + (f" named {index_id!r}" if index_id else "")
            + "; open the folder it was saved to, StorageContext.from_defaults(persist_dir='folder'), with "
            "vector_store=... as well if the vectors are not in LlamaIndex's own store"
        )
    return ContextualVectorStoreIndex(
        embed_model=embed_model,
        transformations=transformations_of(transformations, splitter),
        storage_context=storage_context,
        callback_manager=callback_manager,
        index_struct=structure or _new(index_id),
        **index_options,
    )


def _options(
    documents: Sequence[Document],
    embed_model: object,
    vector_store: BasePydanticVectorStore | None,
    storage_context: StorageContext | None,
    splitter: NodeParser | None,
    transformations: Sequence[TransformComponent] | None,
    index_id: str | None,
) -> dict[str, Any]:
    check_documents(documents)
    if vector_store is not None and storage_context is not None:
        raise InputError("give vector_store or storage_context, not both: a storage context has its own vector store")
    storage = storage_context or StorageContext.from_defaults(vector_store=vector_store)
    structure = _structure(storage, index_id) if index_id is not None or not documents else None
    if structure is None and not storage.vector_store.stores_text:
        _check_unowned(storage, documents)
        _warn_of_another(storage, documents)
    return {
        "embed_model": embed_model,
        "storage_context": storage,
        "transformations": transformations_of(transformations, splitter),
        "index_struct": structure or _new(index_id),
    }


def _new(index_id: str | None) -> IndexDict:
    return IndexDict() if index_id is None else IndexDict(index_id=index_id)


def _structure(storage: StorageContext, index_id: str | None) -> IndexDict | None:
    structures = vector_structures(storage)
    if index_id is not None:
        return next((one for one in structures if one.index_id == index_id), None)
    if len(structures) > 1:
        names = ", ".join(repr(one.index_id) for one in structures)
        raise InputError(
            f"the storage context holds {len(structures)} vector indexes, {names}; say which: "
            + _LOAD.format(", index_id=...")
        )
    return structures[0] if structures else None


def _check_unowned(storage: StorageContext, documents: Sequence[Document]) -> None:
    """Refuse vectors without the structure that says whose they are: nothing would be found, or the wrong node."""
    store = storage.vector_store
    numbered = hasattr(store.client, "ntotal")  # as FAISS does
    vectors = getattr(getattr(store, "data", None), "embedding_dict", ())
    count = store.client.ntotal if numbered else len(vectors)
    if count and (numbered or not documents):
        raise InputError(
            f"{type(store).__name__} holds {count} vectors already, and only the index they belong to knows their "
            "texts. Open it: storage_context = StorageContext.from_defaults(vector_store=vector_store, "
            f"persist_dir='folder'); {_LOAD.format('')}"
        )


def _warn_of_another(storage: StorageContext, documents: Sequence[Document]) -> None:
    for structure in vector_structures(storage):
        held = set(structure.nodes_dict.values())
        for document in documents:
            info = storage.docstore.get_ref_doc_info(document.id_)
            if info is not None and not held.isdisjoint(info.node_ids):
                warn(
                    f"document {document.id_!r} is in index {structure.index_id!r} of this storage context, and a "
                    f"second index is made beside it. To update it: {_LOAD.format('')}.refresh_ref_docs(documents); "
                    "for a second one on purpose give it a name, index_id='another'"
                )
                return
