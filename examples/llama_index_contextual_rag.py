# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Contextual RAG with LlamaIndex and pplx-embed
#
# ## What you'll build
#
# A question-answering index over a few company profiles, twice: once with every chunk embedded by itself, once with
# every chunk embedded in the context of its document. Most chunks never name their company:
#
# ```text
#               document                        each chunk by itself        chunks in context
#   ┌──────────────────────────────┐
#   │ Halcyon Bikes builds …       │ ───────▶  knows: Halcyon Bikes        knows: Halcyon Bikes
#   │ The company was founded in … │ ───────▶  knows: some company         knows: Halcyon Bikes
#   │ Its first office was …       │ ───────▶  knows: some office          knows: Halcyon Bikes
#   └──────────────────────────────┘
# ```
#
# The two rankings for one question are printed side by side below. Everything runs offline, in seconds, on the small
# checkpoints that come with the package; swap the name for `"0.6b"` to use the published models.

# %% [markdown]
# ## Install
#
# ```bash
# pip install "pplx-embed-integrations[llama-index]"
# ```

# %% [markdown]
# ## Load a model
#
# A `PplxEmbedding` holds a model for queries and one for documents. Nothing is loaded before the first vector.

# %%
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter

from pplx_embed_integrations.llama_index import PplxEmbedding, contextual_index

embed_model = PplxEmbedding("miniature")
print(embed_model.model_name, "->", len(embed_model.get_query_embedding("hello")), "dimensions")

# %% [markdown]
# The documents, and a splitter that makes a chunk of each paragraph. Contextual chunks want no overlap: the model reads
# the neighbours anyway.

# %%
companies = [
    ("Northwind Robotics", "robots that pick apples", 2009, "two sisters", "a barn outside the town"),
    ("Halcyon Bikes", "electric bicycles", 2014, "a former racer", "a cellar under a bakery"),
    ("Bluewater Labs", "sensors for rivers and lakes", 1998, "three students", "a container at the port"),
    ("Amber Pharmaceuticals", "medicines against malaria", 1987, "a doctor and a chemist", "a disused school"),
    ("Granite Software", "programs for hospitals", 2003, "four friends", "a flat above a cinema"),
]
documents = [
    Document(
        id_=name,
        text=f"{name} builds {product}. It sells them in thirty countries and employs four hundred people, most of "
        "them engineers and technicians who work at its headquarters in the old harbour.\n\n"
        f"The company was founded in {year} by {founders}. They had little money, worked in the evenings and at "
        "weekends, and needed three attempts before the first customer placed an order.\n\n"
        f"Its first office was {office}. The rent was low, the roof was leaking, and for two winters the staff sat at "
        "their desks in coats and gloves until somebody brought a heater.",
    )
    for name, product, year, founders, office in companies
]
splitter = SentenceSplitter(chunk_size=60, chunk_overlap=0, paragraph_separator="\n\n")
for node in splitter(documents[:1]):
    print(repr(node.text))

# %% [markdown]
# ## Index plain
#
# What every LlamaIndex integration does: each chunk is embedded by itself. For a fair comparison the model that was
# trained for single texts embeds it.

# %%
plain_model = embed_model.model_copy(update={"document_model": "miniature-v1"})
plain = VectorStoreIndex.from_documents(documents, transformations=[splitter], embed_model=plain_model)

# %% [markdown]
# ## Index with context
#
# One line. Each document's chunks reach the context model together, in reading order.

# %%
contextual = contextual_index(documents, embed_model=embed_model, splitter=splitter)

# %% [markdown]
# ## Compare


# %%
def ranking(index, question, top=4):
    hits = index.as_retriever(similarity_top_k=top).retrieve(question)
    return [f"{hit.score:.2f}  {hit.node.ref_doc_id:22} {hit.text[:50]}" for hit in hits]


question = "When was the maker of electric bicycles founded?"
print(
    "Each chunk by itself", *ranking(plain, question), "", "Chunks in context", *ranking(contextual, question), sep="\n"
)

# %% [markdown]
# Over two questions for every company: how often is the right chunk among the first three, which a language model would
# be given?


# %%
def right_among_three(index):
    hits = 0
    for name, product, year, _, _ in companies:
        for question in (f"When was {name} founded?", f"When was the maker of {product} founded?"):
            best = index.as_retriever(similarity_top_k=3).retrieve(question)
            hits += any(hit.node.ref_doc_id == name and str(year) in hit.text for hit in best)
    return f"{hits} of {2 * len(companies)}"


print("plain:", right_among_three(plain), "| contextual:", right_among_three(contextual))

# %% [markdown]
# A query engine works as ever. `MockLLM` stands in for a language model and repeats its prompt, which shows what a real
# one would be given:

# %%
engine = contextual.as_query_engine(llm=MockLLM(), similarity_top_k=3)
print(engine.query(question))

# %% [markdown]
# An edit moves the vectors of the whole document, and of no other:

# %%
edited = Document(id_="Halcyon Bikes", text=documents[1].text.replace("2014", "2016"))
print(contextual.refresh_ref_docs([documents[0], edited, *documents[2:]]))

# %% [markdown]
# ## Shrink
#
# Fewer dimensions and binary codes. LlamaIndex keeps lists of floats; the sizes are those of the native form, which
# `encode_*` gives to stores that take it.

# %%
for dimensions, quantization in [(384, "int8"), (192, "int8"), (384, "binary"), (192, "binary")]:
    small = embed_model.model_copy(update={"dimensions": dimensions, "quantization": quantization})
    index = contextual_index(documents, embed_model=small, splitter=splitter)
    size = dimensions if quantization == "int8" else dimensions // 8
    print(f"{dimensions:4} {quantization:7} {size:4} bytes a vector: {right_among_three(index)} right")

# %% [markdown]
# ## Limits and next
#
# - The miniature pair is small and was trained on English text; these are toy documents. Measure on your own data:
#   `pplx-embed evaluate DIR`.
# - A document's chunks must come together. `contextual_index`, `transformations=[splitter, embed_model]` and
#   `IngestionPipeline` see to that; a flat list of texts is embedded text by text, and a warning says so.
# - Large collections: run an `IngestionPipeline` in slices and save it after each, as `docs/contextual-llama-index.md`
#   shows.
# - Another store is one argument: `contextual_index(documents, embed_model=embed_model, vector_store=...)`.
