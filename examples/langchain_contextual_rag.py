# %% [markdown]
# # Contextual RAG with LangChain and pplx-embed
#
# ## 1. What you'll build
#
# A small retrieval pipeline over encyclopedia-like articles, indexed twice: once with every chunk embedded by itself,
# once with every chunk embedded in the context of its article.
#
# ```text
#                     ┌─ chunk by chunk ──────────────► plain index ──────┐
# articles ─ splitter ┤                                                   ├─ the same question ─ two rankings
#                     └─ article by article (context) ► contextual index ─┘
# ```
#
# Articles name their subject at the beginning and say "it" or "the town" from then on. A question names the subject.
# So the chunk that answers it and the words of the question have little in common, unless the chunk's vector has read
# the rest.

# %% [markdown]
# ## 2. Install
#
# ```bash
# pip install "pplx-embed-integrations[langchain]" langchain-text-splitters
# ```

# %%
from langchain_core.documents import Document
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_text_splitters import RecursiveCharacterTextSplitter

from pplx_embed_integrations.langchain import PplxEmbeddings, add_documents, split_documents

# %% [markdown]
# ## 3. Load a model
#
# `"miniature"` is a pair of small models that comes with the package and runs offline; `"0.6b"` and `"4b"` are the
# published ones. Nothing is loaded before the first vector. Queries go through the pair's v1 model, documents through
# its context-v1 model; `PplxEmbeddings("context-v1-0.6b")` puts the contextual model on both sides, as the vendor
# advises for contextual indexes.

# %%
MODEL = "miniature"
embeddings = PplxEmbeddings(MODEL)
print(embeddings.biencoder)

# %% [markdown]
# The articles, whole, each named by its `id`. Splitting without overlap matters: the model reads the neighbours anyway,
# and repeated text would be read twice.

# %%
ARTICLES = {
    "Lighthouse of Orrin": """The Lighthouse of Orrin stands on a rock off the northern coast.

It was built between 1811 and 1816 by prisoners of war, who carried the stones across at low tide.

The lamp burned whale oil at first, then paraffin, and has been electric since 1932.

It can be visited on Sundays in summer, when the ferry stops at the landing.""",
    "Marlow Bridge": """Marlow Bridge crosses the river Tarn at the old market town.

It was built in 1874 after a flood had swept away the wooden one.

The iron was cast in three pieces and floated downstream on barges.

It is closed to lorries, and repainted every seven years.""",
    "Saint Brannock's Abbey": """Saint Brannock's Abbey lies in a valley among apple orchards.

It was founded in 1123 by twelve monks from Burgundy.

The library held four hundred manuscripts, most of which were burned in 1539.

It is a school today, and the cloister can be rented for weddings.""",
    "Tolvan Mine": """Tolvan Mine was the deepest tin mine of the county.

It was opened in 1760 by a family of farmers who had found ore while digging a well.

Steam engines pumped the water out, one of which still stands in its roofless house.

It was closed in 1928, when the price of the metal fell.""",
    "Halsey Observatory": """Halsey Observatory is known for its survey of variable stars.

It was built in 1902 on a hill far from the lights of the city.

The mirror of its great telescope took four years to grind.

It was given to the university in 1951, and opens its doors on the first Friday of the month.""",
    "Port Ellery Railway": """The Port Ellery Railway ran along the coast for eleven miles.

It was opened in 1889 to carry slate from the quarries to the harbour.

The locomotives were painted green, and named after the daughters of the director.

It was taken up in 1947, and walkers follow its track today.""",
}
QUESTIONS = {
    "When was the lighthouse built, and by whom?": ("Lighthouse of Orrin", "prisoners of war"),
    "When was the bridge over the Tarn built?": ("Marlow Bridge", "1874"),
    "Who founded the abbey?": ("Saint Brannock's Abbey", "twelve monks"),
    "What is the abbey used for now?": ("Saint Brannock's Abbey", "school"),
    "When was the tin mine opened?": ("Tolvan Mine", "1760"),
    "Why was the tin mine given up?": ("Tolvan Mine", "price of the metal"),
    "When can I visit the observatory of variable stars?": ("Halsey Observatory", "first Friday"),
    "When was the coastal railway opened?": ("Port Ellery Railway", "1889"),
}

splitter = RecursiveCharacterTextSplitter(chunk_size=110, chunk_overlap=0)
articles = [Document(text, id=title, metadata={"source": title}) for title, text in ARTICLES.items()]
chunks = split_documents(articles, splitter)
print(len(articles), "articles,", len(chunks), "chunks")

# %% [markdown]
# ## 4. Index plain
#
# For comparison each chunk is a document of its own here: so the store's own `add_documents` would take it.

# %%
plain = InMemoryVectorStore(embeddings)
plain_ids = add_documents(plain, chunks, group_by=range(len(chunks)))

# %% [markdown]
# ## 5. Index with context
#
# Whole articles and the splitter: the chunks of an article are read together. This works with any LangChain vector
# store: FAISS, Chroma, Qdrant, Milvus, LanceDB, pgvector and the rest.

# %%
contextual = InMemoryVectorStore(embeddings)
contextual_ids = add_documents(contextual, articles, splitter=splitter)

# %% [markdown]
# ## 6. Compare
#
# The two rankings for one question, then how often the chunk with the answer comes first and how high it stands on
# average (mean reciprocal rank).


# %%
def answers(hit: Document, title: str, words: str) -> bool:
    return hit.metadata["source"] == title and words in hit.page_content


def show(store: InMemoryVectorStore, question: str, count: int = 4) -> None:
    for hit, score in store.similarity_search_with_score(question, k=count):
        mark = "►" if answers(hit, *QUESTIONS[question]) else " "
        print(f"  {mark} {score:.2f}  {hit.metadata['source']:23} {hit.page_content}")


question = "When was the tin mine opened?"
for name, store in {"plain": plain, "contextual": contextual}.items():
    print(f"{name}: {question}")
    show(store, question)


# %%
def measure(store: InMemoryVectorStore) -> tuple[float, float]:
    ranks = []
    for question, (title, words) in QUESTIONS.items():
        hits = store.similarity_search(question, k=len(chunks))
        ranks.append(next(rank for rank, hit in enumerate(hits, start=1) if answers(hit, title, words)))
    return sum(rank == 1 for rank in ranks) / len(ranks), sum(1 / rank for rank in ranks) / len(ranks)


def row(name: str, store: InMemoryVectorStore) -> None:
    first, reciprocal = measure(store)
    print(f"{name:30} first {first:4.0%}   MRR {reciprocal:.2f}")


row("plain", plain)
row("contextual", contextual)

# %% [markdown]
# Eight questions show the idea and prove nothing; `pplx-embed evaluate DIR` measures on your own documents.
#
# The rest of a RAG pipeline is LangChain as usual. The prompt below goes to any chat model: `chain | model`.

# %%
prompt = ChatPromptTemplate.from_template("Answer from these notes only:\n{notes}\n\nQuestion: {question}")
retriever = contextual.as_retriever(search_kwargs={"k": 2})


def notes(question: str) -> dict[str, str]:
    found = retriever.invoke(question)
    text = "\n".join(f"- {hit.metadata['source']}: {hit.page_content}" for hit in found)
    return {"notes": text, "question": question}


chain = notes | prompt
print(chain.invoke(question).to_string())

# %% [markdown]
# ## 7. Shrink
#
# int8 codes of the full width are the default. Fewer dimensions and one bit per dimension shrink further; what that
# costs is measured the same way. (LangChain's stores take floats, so the bytes are those of a store that keeps the
# native form: `encode_documents(..., quantization="ubinary")` gives packed bits.)

# %%
width = embeddings.biencoder.dimension
for quantization, bytes_each in {None: 4.0, "int8": 1.0, "binary": 1 / 8}.items():
    for dimensions in (width, width // 2):
        small = PplxEmbeddings(MODEL, dimensions=dimensions, quantization=quantization)
        store = InMemoryVectorStore(small)
        add_documents(store, articles, splitter=splitter)
        row(f"{quantization or 'float32'}, {dimensions} dim, {int(dimensions * bytes_each)} bytes", store)

# %% [markdown]
# ## 8. Limits and next
#
# - The miniature pair is small, English and not for production: try `PplxEmbeddings("0.6b")`.
# - Chunks that something else has cut go in with `group_by=`, the metadata key of their document; all of a document in
#   one call, in reading order or with `start_index`, without overlap.
# - To keep an index up to date, `index_documents(articles, record_manager, store, splitter=splitter)` replaces a
#   document as a whole when it has changed, and embeds nothing when it has not; `delete_documents` removes one by its
#   `id`.
# - `PplxEmbeddings(..., cache=byte_store)` pays for each document once.
# - A question that many articles could answer stays ambiguous: context tells a chunk what it is about, not what you
#   meant.
