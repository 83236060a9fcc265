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
# Six short articles that name their subject at the beginning and say "it" from then on, and twelve questions, each with
# the sentence that answers it. Your own documents go here; `"miniature"` is a pair of small models that comes with the
# package.

# %%
MODEL = "miniature"
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
    "What did the lighthouse burn?": ("Lighthouse of Orrin", "whale oil"),
    "How was the iron of the bridge brought there?": ("Marlow Bridge", "barges"),
    "What became of the abbey's manuscripts?": ("Saint Brannock's Abbey", "burned in 1539"),
    "How long did the observatory's mirror take?": ("Halsey Observatory", "four years"),
}
corpus = [Document("\n".join(text.split("\n\n")), id=title) for title, text in ARTICLES.items()]
print(len(corpus), "articles,", len(QUESTIONS), "questions")

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
# Bytes are those of a vector alone: four a number in float32; codes and the bits that find them; bits. Quality is
# the mean reciprocal rank: 1 if every question has its answer first, 1/2 if second.

# %%
size = floats.biencoder.dimension
kept = {"float32": 4 * size}
for name in ("int8", "bits"):
    stats = stores[name].stats()
    kept[name] = sum(stats.bytes_by_form.values()) // stats.rows

quality, latency = {}, {}
for name, store in stores.items():
    store.similarity_search("a first question takes longer", k=1)
    start = time.perf_counter()
    found = [store.similarity_search(question, k=10) for question in QUESTIONS]
    latency[name] = (time.perf_counter() - start) / len(QUESTIONS) * 1000
    ranks = [
        [chunk.metadata["pplx_document"] == title and words in chunk.page_content for chunk in chunks]
        for chunks, (title, words) in zip(found, QUESTIONS.values(), strict=True)
    ]
    quality[name] = sum(1 / (1 + rank.index(True)) for rank in ranks if True in rank) / len(ranks)
for name in quality:
    print(f"{name:8} {kept[name]:5} bytes a vector   MRR {quality[name]:.2f}   {latency[name]:5.1f} ms a question")

# %% [markdown]
# At this size a question takes the time of embedding it, and that of a table on disk beside a list in memory.
# `docs/measurements.md` has a million vectors of 1024 numbers.

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3))
for axis, (title, values) in zip(
    axes, {"bytes a vector": kept, "mean reciprocal rank": quality, "ms a question": latency}.items(), strict=True
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
