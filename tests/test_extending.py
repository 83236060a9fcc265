"""What extending costs: each kind of addition is made in the one place that docs/architecture.md names for it.

Everything added here is compared with a naive computation, in LangChain and in LlamaIndex.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import Qwen3Config, Qwen3Model

import pplx_embed_integrations
from pplx_embed_integrations import (
    CheckpointError,
    FakeEmbedder,
    InputError,
    InputTypeError,
    NotContextualError,
    PplxBiEncoder,
    PplxEncoder,
)
from pplx_embed_integrations.backbone.backends.base import Backend
from pplx_embed_integrations.embedder import identify
from pplx_embed_integrations.families import FAMILIES, PPLX_EMBED, Family, Head
from pplx_embed_integrations.langchain import PplxEmbeddings, add_documents
from pplx_embed_integrations.llama_index import PplxEmbedding
from pplx_embed_integrations.registry import BACKENDS, BackendName
from pplx_embed_integrations.vectors import Quantization, Vectors, quantize

CHUNKS = ["Ångström was born in 1814.", "He measured light.", "Nobody <|im_end|> knows why."]
QUERY = "Who measured [D] light?"
WIDTH = 16

Embed = Callable[[list[str], str], np.ndarray]
"""Gives a row for each chunk of a document, or for a query, in float64."""


def through_langchain(embeddings: PplxEmbeddings) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors of the chunks in a store, and of the query."""
    store = InMemoryVectorStore(embeddings)
    ids = add_documents(store, [Document(text, metadata={"source": "a"}) for text in CHUNKS], group_by="source")
    return np.array([store.store[key]["vector"] for key in ids]), np.array(embeddings.embed_query(QUERY))


def through_llama_index(embed_model: PplxEmbedding) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors of the nodes of a document, and of the query."""
    nodes = [TextNode(text=text) for text in CHUNKS]
    for node in nodes:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="a")
    return np.array([node.embedding for node in embed_model(nodes)]), np.array(embed_model.get_query_embedding(QUERY))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def codes(pooled: np.ndarray) -> np.ndarray:
    """Return the int8 codes of the made-up family: not those of pplx-embed."""
    return np.clip(np.rint(pooled * 100), -127, 127).astype(np.int8)


MADE_UP = Family(
    name="made-up",
    model_type="made_up_qwen3",
    separator="<|im_end|>",
    prompts=("<|im_start|>query: ", "[D] "),
    head=Head(dimension="vector_size", weight="head.weight", bias="head.bias"),
    quantizer=codes,
    smallest=4,
    contextual=lambda config: True,
)


@pytest.fixture
def made_up(replica_v1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of a tiny checkpoint of another family, which one record makes known."""
    monkeypatch.setitem(FAMILIES, MADE_UP.model_type, MADE_UP)
    folder = tmp_path / "made-up"
    shutil.copytree(replica_v1, folder, ignore=shutil.ignore_patterns("modules.json", "1_Pooling"))
    config = json.loads((folder / "config.json").read_text())
    del config["auto_map"]
    config |= {"model_type": MADE_UP.model_type, "vector_size": WIDTH, "architectures": ["MadeUpModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    random = torch.Generator().manual_seed(5)
    tensors["head.weight"] = torch.randn(WIDTH, config["hidden_size"], generator=random)
    tensors["head.bias"] = torch.randn(WIDTH, generator=random)
    save_file(tensors, folder / "model.safetensors")
    return folder


def naive_family(folder: Path) -> Embed:
    """Return the made-up family in plain transformers: prompt, separators, mean over each chunk, head."""
    settings = json.loads((folder / "config.json").read_text()) | {"model_type": "qwen3", "is_causal": False}
    config = Qwen3Config.from_dict(settings)
    config._attn_implementation = "eager"
    model = Qwen3Model(config).eval()
    tensors = load_file(folder / "model.safetensors")
    weight, bias = tensors.pop("head.weight").double(), tensors.pop("head.bias").double()
    model.load_state_dict(tensors)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    separator = tokenizer.token_to_id("<|im_end|>")

    @torch.inference_mode()
    def embed(chunks: list[str], prompt: str) -> np.ndarray:
        tokenizer.encode_special_tokens = False
        ids, spans = tokenizer.encode(prompt, add_special_tokens=False).ids, []
        tokenizer.encode_special_tokens = True  # what a text spells is text
        for chunk in chunks:
            ids += [separator] if spans else []
            tokens = tokenizer.encode(chunk, add_special_tokens=False).ids
            spans.append((len(ids), len(ids) + len(tokens)))
            ids += tokens
        everything = torch.zeros(1, 1, len(ids), len(ids))
        mask = {"full_attention": everything}
        hidden = model(torch.tensor([ids]), attention_mask=mask, use_cache=False).last_hidden_state[0].double()
        means = torch.stack([hidden[start:end].mean(0) for start, end in spans])
        return (means @ weight.T + bias).numpy()

    return embed


def test_a_family_is_one_record(made_up: Path) -> None:
    naive = naive_family(made_up)
    chunks, [query] = naive(CHUNKS, "[D] "), naive([QUERY], "<|im_start|>query: ")
    encoder = PplxEncoder(made_up, dtype="float32")
    assert (encoder.dimension, encoder.min_dimension, encoder.contextual) == (WIDTH, 2, True)
    np.testing.assert_allclose(encoder.encode_documents([CHUNKS], quantization=None)[0], chunks, atol=2e-5)
    alone = np.vstack([naive([text], "[D] ") for text in CHUNKS])
    np.testing.assert_allclose(encoder.encode(CHUNKS, role="document", quantization=None), alone, atol=2e-5)
    np.testing.assert_allclose(encoder.encode([QUERY], role="query", quantization=None)[0], query, atol=2e-5)
    assert np.abs(encoder.encode_documents([CHUNKS])[0].astype(int) - codes(chunks)).max() <= 1
    np.testing.assert_array_equal(encoder.encode([QUERY], role="query", quantization="binary")[0] > 0, query >= 0)

    for stored, asked in (
        through_langchain(PplxEmbeddings(made_up, dtype="float32", quantization=None)),
        through_llama_index(PplxEmbedding(made_up, dtype="float32", quantization=None)),
    ):
        np.testing.assert_allclose(stored, unit(chunks), atol=2e-5)
        np.testing.assert_allclose(asked, unit(query), atol=2e-5)


def test_a_family_that_reads_roles_differently_asks_for_one(made_up: Path) -> None:
    encoder = PplxEncoder(made_up, dtype="float32", max_tokens=24)
    with pytest.raises(InputError, match=r'made-up reads queries and documents differently; use role="query" or'):
        encoder.encode(["text"])
    with pytest.raises(InputError, match="no form as a SentenceTransformer"):
        encoder.sentence_transformer  # noqa: B018
    prompt = len(Tokenizer.from_file(str(made_up / "tokenizer.json")).encode("[D] ", add_special_tokens=False).ids)
    with pytest.raises(InputError, match=rf"chunk 0 of document 0 has \d+ tokens and the limit is {24 - prompt};"):
        encoder.check_documents([["late chunking " * 24]])
    # Every window of a long document begins with the prompt.
    document = ["late", "chunking", "knows", "its", "neighbours"] * 3
    [windows] = encoder.encode_documents([document], quantization=None)
    naive = naive_family(made_up)
    first = next(n for n in range(len(document), 0, -1) if _tokens(made_up, document[:n]) <= 24)
    np.testing.assert_allclose(windows[0], naive(document[:first], "[D] ")[0], atol=2e-5)


def _tokens(folder: Path, chunks: list[str]) -> int:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return sum(len(tokenizer.encode(text, add_special_tokens=False).ids) + 1 for text in ["[D] ", *chunks]) - 2


def test_a_head_that_does_not_fit_is_refused(made_up: Path) -> None:
    tensors = load_file(made_up / "model.safetensors")
    save_file({**tensors, "head.weight": tensors["head.weight"][:8].clone()}, made_up / "model.safetensors")
    with pytest.raises(ValueError, match=r"'head\.weight' in .* has shape \(8, 32\); config\.json asks for \(16, 32\)"):
        PplxEncoder(made_up).load()
    del tensors["head.bias"]
    save_file(tensors, made_up / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks 1 tensors, 'head\.bias' the first"):
        PplxEncoder(made_up).load()


def test_the_published_family_reads_roles_alike(encoder_context_v1: PplxEncoder) -> None:
    assert PPLX_EMBED.prompts is None
    plain = encoder_context_v1.encode(CHUNKS)
    for role in ("query", "document"):
        np.testing.assert_array_equal(encoder_context_v1.encode(CHUNKS, role=role), plain)


TABLE = """
import numpy as np
from safetensors.torch import load_file
from pplx_embed_integrations.backbone.backends.base import Backend

class Table(Backend):
    def __init__(self, loading, device):
        self.rows = load_file(loading.folder / "model.safetensors")["embed_tokens.weight"].float().numpy()
        self.width, self.batch_tokens = self.rows.shape[1], 8

    def run(self, sequences):
        return np.stack([self.rows[each.ids[start:end]].mean(0) for each in sequences for start, end in each.spans])
"""


def test_a_backend_is_one_file_and_a_line_in_the_registry(
    replica_context_v1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "table_backend.py").write_text(TABLE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(BACKENDS, "table", "table_backend:Table")
    tokenizer = Tokenizer.from_file(str(replica_context_v1 / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    rows = load_file(replica_context_v1 / "model.safetensors")["embed_tokens.weight"].double().numpy()
    *chunks, query = (rows[tokenizer.encode(text, add_special_tokens=False).ids].mean(0) for text in [*CHUNKS, QUERY])
    encoder = PplxEncoder(replica_context_v1, backend="table", dtype="float32")  # type: ignore[arg-type]
    form: dict[str, Any] = {"quantization": None, "dtype": "float32"}
    for stored, asked in (
        through_langchain(PplxEmbeddings(encoder, quantization=None)),
        through_langchain(PplxEmbeddings(replica_context_v1, backend="table", **form)),
        through_llama_index(PplxEmbedding(encoder, quantization=None)),
        through_llama_index(PplxEmbedding(replica_context_v1, backend="table", **form)),
    ):
        np.testing.assert_allclose(stored, unit(np.array(chunks)), atol=1e-6)
        np.testing.assert_allclose(asked, unit(query), atol=1e-6)
    assert json.loads(encoder.identity())["backend"] == "table"
    with pytest.raises(InputError, match="no torch model; leave backend out"):
        encoder.sentence_transformer  # noqa: B018
    with pytest.raises(InputError, match='"torch", "openvino" or "table"'):
        PplxEncoder(replica_context_v1, backend="tables")  # type: ignore[arg-type]


def test_the_registry_and_the_type_of_the_option_agree() -> None:
    assert set(BACKENDS) == set(get_args(BackendName))
    for place in BACKENDS.values():
        module, _, name = place.partition(":")
        assert Backend in getattr(importlib.import_module(module), name).__mro__


class Counting:
    """Another source of vectors: how often each of eight letters stands in a chunk, and in what is before it."""

    dimension = 8
    min_dimension = 4
    contextual = True

    def identity(self) -> str:
        return identify("counting", letters="aeiouymt")

    def check_documents(self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None) -> None:
        for name, chunks in zip(names or map(str, range(len(documents))), documents, strict=True):
            if any(len(chunk) > 99 for chunk in chunks):
                raise InputError(f"{name} is too long to be counted")

    def encode(
        self,
        texts: Sequence[str],
        *,
        role: str | None = None,
        quantization: Quantization | None = "int8",
        dimensions: int | None = None,
        normalize: bool = False,
        show_progress: bool = False,
    ) -> Vectors:
        rows = [[text.count(letter) * (2 if role == "query" else 1) - 0.5 for letter in "aeiouymt"] for text in texts]
        matrix = np.reshape(rows, (-1, self.dimension))
        return quantize(matrix, dimensions=dimensions, quantization=quantization, normalize=normalize)

    def encode_documents(
        self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None, **form: Any
    ) -> list[Vectors]:
        self.check_documents(documents, names=names)
        return [self.encode(["".join(chunks[: end + 1]) for end in range(len(chunks))], **form) for chunks in documents]

    async def aencode(self, texts: Sequence[str], **form: Any) -> Vectors:
        return self.encode(texts, **form)

    async def aencode_documents(self, documents: Sequence[Sequence[str]], **form: Any) -> list[Vectors]:
        return self.encode_documents(documents, **form)

    def close(self) -> None:
        raise AssertionError("what a user made, the user closes")


LETTERS = "aeiouymt"


def test_another_source_of_vectors_is_one_class() -> None:
    counted = ["".join(CHUNKS[: end + 1]) for end in range(len(CHUNKS))]
    chunks = unit(np.array([[text.count(letter) - 0.5 for letter in LETTERS[:6]] for text in counted]))
    query = unit(np.array([QUERY.count(letter) * 2 - 0.5 for letter in LETTERS[:6]]))
    form: dict[str, Any] = {"quantization": None, "dimensions": 6}
    for stored, asked in (
        through_langchain(PplxEmbeddings(Counting(), **form)),
        through_langchain(PplxEmbeddings(query_model=Counting(), document_model=Counting(), **form)),
        through_llama_index(PplxEmbedding(Counting(), **form)),
        through_llama_index(PplxEmbedding(query_model=Counting(), document_model=Counting(), **form)),
    ):
        np.testing.assert_allclose(stored, chunks, atol=1e-6)
        np.testing.assert_allclose(asked, query, atol=1e-6)
    pair = PplxBiEncoder(Counting())
    assert pair.contextual
    assert json.loads(pair.identity())["checkpoint"] == "counting"
    pair.close()


def test_any_two_embedders_make_a_pair_if_their_widths_agree(biencoder: PplxBiEncoder) -> None:
    width = biencoder.dimension
    pair = PplxBiEncoder(query_model=FakeEmbedder(width), document_model=biencoder.document)
    np.testing.assert_array_equal(pair.encode_queries([QUERY]), FakeEmbedder(width).encode([QUERY]))
    np.testing.assert_array_equal(pair.encode_documents([CHUNKS])[0], biencoder.encode_documents([CHUNKS])[0])
    assert pair.identity() == biencoder.identity()
    plain = PplxBiEncoder(query_model=biencoder.document, document_model=FakeEmbedder(width, contextual=False))
    assert not plain.contextual
    with pytest.raises(NotContextualError, match=r"FakeEmbedder\(dimension=32, contextual=False"):
        plain.encode_documents([CHUNKS])
    with pytest.raises(CheckpointError, match=r"query_model=FakeEmbedder\(.* gives 64 dimensions and .* 32"):
        PplxBiEncoder(query_model=FakeEmbedder(64), document_model=biencoder.document)
    with pytest.raises(CheckpointError, match=r"FakeEmbedder\(.* gives 64 dimensions and miniature-context-v1"):
        PplxBiEncoder("miniature", query_model=FakeEmbedder(64))


@pytest.mark.parametrize("make", [PplxBiEncoder, PplxEmbeddings, PplxEmbedding])
def test_what_makes_no_sense_beside_an_embedder_is_refused(make: Callable[..., object]) -> None:
    one = FakeEmbedder()
    with pytest.raises(InputError, match="no use for device; both models are embedders"):
        make(one, device="cpu")
    with pytest.raises(InputError, match="query_revision='main' is for a checkpoint"):
        make(query_model=one, document_model=one, query_revision="main")
    with pytest.raises(InputTypeError, match=r"no embedder: Half lacks contextual, identity,"):
        make(query_model=Half(), document_model=one)
    for wrong in (3, FakeEmbedder):
        with pytest.raises(InputTypeError, match=r'a name such as "context-v1-0\.6b"'):
            make(wrong)


class Half:
    dimension = 1024
    min_dimension = 128

    def encode(self) -> None: ...


def test_an_embedder_is_part_of_keys_copies_and_pickles() -> None:
    given = [FakeEmbedder(), FakeEmbedder(max_tokens=9), FakeEmbedder(512)]
    assert len({PplxEmbeddings(one).vector_identity() for one in given}) == 3
    assert len({PplxEmbedding(one).to_json() for one in given}) == 3
    # An encoder is known by what it is, not by the options of the adapter around it.
    encoders = [PplxEncoder("miniature-context-v1", dtype="float32", truncate=cut) for cut in (False, True)]
    assert len({PplxEmbedding(one).to_json() for one in encoders}) == 2
    for make, embed in ((PplxEmbeddings, through_langchain), (PplxEmbedding, through_llama_index)):
        model = make(query_model=given[0], document_model=given[1], dimensions=256)
        expected = embed(model)
        for again in (pickle.loads(pickle.dumps(model)), model.model_copy(), model.model_copy(update={"device": None})):
            for part, other in zip(embed(again), expected, strict=True):
                np.testing.assert_array_equal(part, other)
    data = PplxEmbedding(given[0]).to_dict()
    with pytest.raises(CheckpointError, match=r"stands for an embedder .*; give it: from_dict\(data, query_model="):
        PplxEmbedding.from_dict(data)
    again = PplxEmbedding.from_dict(data, query_model=given[0], document_model=given[0])
    assert again.to_dict() == data
    with pytest.raises(InputError, match="embeddings_cache"):
        PplxEmbedding(FakeEmbedder(contextual=False), embeddings_cache=SimpleKVStore())


async def test_an_embedder_works_asynchronously() -> None:
    model = PplxEmbeddings(FakeEmbedder(128))
    assert await model.aembed_query(QUERY) == model.embed_query(QUERY)
    assert await model.aembed_document_chunks([CHUNKS]) == model.embed_document_chunks([CHUNKS])
    other = PplxEmbedding(FakeEmbedder(128))
    assert await other.aget_query_embedding(QUERY) == model.embed_query(QUERY)


OPTION = """
    echo: Literal["soft", "loud"] | None = decisive("How the walls answer", default=None, absent="not at all")
"""
NEW_OPTION = """
import json, pickle
import pplx_embed_integrations
from pplx_embed_integrations import PplxEncoder, PplxBiEncoder
from pplx_embed_integrations.langchain import PplxEmbeddings
from pplx_embed_integrations.llama_index import PplxEmbedding

found = {}
for make in (PplxEncoder, PplxBiEncoder, PplxEmbeddings, PplxEmbedding):
    name = make.__name__
    loud, plain = (make("miniature-context-v1", **option) for option in ({"echo": "loud"}, {}))
    again = pickle.loads(pickle.dumps(loud))
    errors = []
    for wrong in ({"echo": "shrill"}, {"ecko": "loud"}):
        try:
            make("miniature-context-v1", **wrong)
        except Exception as error:
            errors.append([type(error).__name__, str(error).partition("; there are")[0]])
    encoder = loud if make is PplxEncoder else getattr(loud, "biencoder", loud).document
    method = {"PplxEmbeddings": "vector_identity", "PplxEmbedding": "to_json"}.get(name, "identity")
    key = [getattr(each, method)() for each in (loud, again, plain)]
    found[name] = {
        "values": [loud.echo, again.echo, plain.echo, encoder.echo],
        "described": "How the walls answer" in make.__doc__,
        "same key": [key[0] == key[1], key[0] == key[2]],
        "errors": errors,
    }
[found["vectors"]] = PplxEmbeddings("miniature", echo="soft").embed_document_chunks([["late", "chunking"]])
assert pplx_embed_integrations.__file__.startswith(COPY)
print(json.dumps(found))
"""


def test_an_option_is_one_entry(tmp_path: Path) -> None:
    package = Path(pplx_embed_integrations.__file__).parent
    copy = tmp_path / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    source = (copy / "options.py").read_text()
    place = "\n    truncate: bool = decisive("
    assert source.count(place) == 1
    (copy / "options.py").write_text(source.replace(place, OPTION + place))
    script = NEW_OPTION.replace("COPY", repr(str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    expected = PplxEncoder("miniature-context-v1").encode_documents([["late", "chunking"]])[0]
    np.testing.assert_allclose(found.pop("vectors"), unit(expected.astype(float)), atol=1e-6)
    for each in found.values():
        assert each["values"] == ["loud", "loud", None, "loud"]
        assert each["described"]
        assert each["same key"] == [True, False]
        assert each["errors"] == [
            ["InputError", 'echo=\'shrill\' is unknown; use "soft" or "loud", or leave it out'],
            ["InputTypeError", "there is no option 'ecko' (did you mean 'echo'?)"],
        ]
    assert len(found) == 4


def test_the_map_has_every_room() -> None:
    package = Path(pplx_embed_integrations.__file__).parent
    rooms = [path for folder in (package, package / "backbone") for path in folder.iterdir()]
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = page.partition("## The map")[2].partition("## Layers")[0]
    missing = [
        path.name
        for path in rooms
        if path.name not in ("__pycache__", "py.typed") and f"{path.name}{'/' * path.is_dir()}" not in named
    ]
    assert not missing
