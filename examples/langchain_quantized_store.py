# %% [markdown]
# # Smaller vectors with LangChain: float32, int8 and bits beside each other
#
# The same corpus in three stores: LangChain's own, which keeps float32 whatever a model gives, and
# `QuantizedVectorStore` with int8 codes and with bits. What each keeps, how fast it answers and how well, in one plot.

# %% [markdown]
# ## 1. Install
#
# ```bash
# pip install "pplx-embed-integrations[langchain,store]" matplotlib
# ```

# %%
import tempfile
import time

import matplotlib.pyplot as plt
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from pplx_embed_integrations.langchain import PplxEmbeddings, QuantizedVectorStore, add_documents

# %% [markdown]
# ## 2. A corpus with questions
#
# Sixty made-up places of four sentences each, of which only the first names the place. Every question has one sentence
# that answers it. Your own documents go here; `"miniature"` is a pair of small models that comes with the package.

# %%
MODEL = "miniature"
NAMES = "Orrin Marlow Brannock Tolvan Halsey Ellery Quillon Ashby Pendle Varick".split()
KINDS = {
    "lighthouse": ("stands on a rock off the coast", "The lamp burned", "when the ferry stops at the landing"),
    "bridge": ("crosses the river at the old town", "The iron was cast in", "when the market is held"),
    "abbey": ("lies in a valley among orchards", "The library held books from", "when the bells ring"),
    "mine": ("was dug for tin in the hills", "The engines came from", "when the museum is open"),
    "observatory": ("is known for its survey of stars", "The mirror was ground in", "when the sky is clear"),
    "railway": ("ran along the cliffs to the harbour", "The rails were rolled in", "when the trolley runs"),
}
places = [(name, kind) for kind in KINDS for name in NAMES]
corpus, questions = [], []
for number, (name, kind) in enumerate(places):
    where, detail, visit = KINDS[kind]
    sentences = [
        f"The {name} {kind} {where}.",
        f"It was opened in {1700 + 4 * number} by a guild of the county.",
        f"{detail} {NAMES[number % 7]} for {number + 20} years.",
        f"It can be visited on day {number % 28 + 1} of the month, {visit}.",
    ]
    corpus.append(Document("\n".join(sentences), id=f"{name} {kind}"))
    questions.append((f"In which year was the {name} {kind} opened?", f"{name} {kind}", "opened in"))
print(len(corpus), "documents,", len(questions), "questions")

# %% [markdown]
# ## 3. Three stores
#
# One embedding model in three forms. `QuantizedVectorStore` is a folder, or a place on object storage; it takes whole
# documents, and embeds each chunk in the context of its document.

# %%
floats = PplxEmbeddings(MODEL, quantization=None)
codes, bits = PplxEmbeddings(MODEL), PplxEmbeddings(MODEL, quantization="binary")
stores = {
    "float32": InMemoryVectorStore(floats),
    "int8": QuantizedVectorStore(codes, tempfile.mkdtemp()),
    "bits": QuantizedVectorStore(bits, tempfile.mkdtemp(), keep="bits"),
}
for store in stores.values():
    add_documents(store, corpus, splitter=str.splitlines)

# %% [markdown]
# ## 4. Compare
#
# Bytes are those of a vector alone: four a number in float32; codes and the bits that find them; bits. A question is
# answered when the first chunk found is the right sentence of the right document.

# %%
size = floats.biencoder.dimension
kept = {"float32": 4 * size}
for name in ("int8", "bits"):
    stats = stores[name].stats()
    kept[name] = sum(stats.bytes_by_form.values()) // stats.rows

answered, latency = {}, {}
for name, store in stores.items():
    store.similarity_search(questions[0][0], k=1)
    start = time.perf_counter()
    found = [store.similarity_search(question, k=1)[0] for question, _, _ in questions]
    latency[name] = (time.perf_counter() - start) / len(questions) * 1000
    right = [
        chunk.metadata["pplx_document"] == document and words in chunk.page_content
        for chunk, (_, document, words) in zip(found, questions, strict=True)
    ]
    answered[name] = sum(right) / len(right)
for name in stores:
    print(
        f"{name:8} {kept[name]:5} bytes a vector   {answered[name]:4.0%} answered   {latency[name]:5.1f} ms a question"
    )

# %% [markdown]
# At this size a question's time is that of embedding it, and of a table on disk beside a list in memory. `docs/stores.md`
# and `docs/quantized-store.md` have a million vectors of 1024 numbers.

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3))
for axis, (title, values) in zip(
    axes, {"bytes a vector": kept, "answered first": answered, "ms a question": latency}.items(), strict=True
):
    axis.bar(list(values), list(values.values()))
    axis.set_title(title)
figure.tight_layout()
plt.show()

# %% [markdown]
# ## 5. Limits and next
#
# - Scores are cosines of codes; with `keep="bits"` the query's codes rank the signs of the chunks, so a score is lower.
# - Other models, widths and forms are refused when a store is opened again: vectors of two models cannot be compared.
# - Filters, hybrid search, updates, upkeep: `docs/quantized-store.md`.
