"""The ways of running a checkpoint that are compared, all from text to vectors.

Knows how each is set up with its own defaults; must not know workloads or clocks.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from transformers import Qwen3Model
from transformers.masking_utils import create_causal_mask

from pplx_embed_integrations import PplxBiEncoder
from pplx_embed_integrations.backbone.qwen3.export import PplxQwen3Model, as_transformers
from pplx_embed_integrations.backbone.qwen3.network import load_network
from pplx_embed_integrations.backbone.qwen3.sentence_transformer import compose

from .checkpoints import Shape, checkpoint, stock_checkpoint
from .machine import native_bfloat16


class Contender(Protocol):
    """`texts` gives a row a text; `document` gives rows, or one row where there is no contextual way."""

    def texts(self, texts: list[str]) -> Any: ...
    def query(self, texts: list[str]) -> Any: ...
    def queries(self, texts: list[str]) -> Any: ...
    def document(self, chunks: list[str]) -> Any: ...


class Ours:
    """This package as the adapters call it: from text to lists of unit-length Python floats."""

    def __init__(self, shape: Shape, device: str, **options: Any) -> None:
        folder = str(checkpoint(shape))
        self.pair = PplxBiEncoder(query_model=folder, document_model=folder, device=device, **options)

    def texts(self, texts: list[str]) -> Any:
        return self.pair.embed_texts(texts)

    def query(self, texts: list[str]) -> Any:
        return self.pair.embed_query(texts[0])

    def queries(self, texts: list[str]) -> Any:
        async def concurrently() -> Any:
            return await asyncio.gather(*(self.pair.aembed_query(text) for text in texts))

        return asyncio.run(concurrently())

    def document(self, chunks: list[str]) -> Any:
        return self.pair.embed_documents([chunks])[0]


class _Plain:
    """A contender that knows texts only: queries come one after the other, a document is one long text.

    One long text costs what a document costs (the published contextual model does the same forward pass).
    """

    def texts(self, texts: list[str]) -> Any:
        raise NotImplementedError

    def query(self, texts: list[str]) -> Any:
        return self.texts(texts[:1])

    def queries(self, texts: list[str]) -> Any:
        return [self.query([text]) for text in texts]

    def document(self, chunks: list[str]) -> Any:
        return self.texts(["<|endoftext|>".join(chunks)])


class PublishedModel(PplxQwen3Model):
    """The published forward pass: a causal mask opened up everywhere by a function, built in every call."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
        embeds = self.embed_tokens(input_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]

        def real(batch: Any, head: Any, query: Any, key: Any) -> Any:
            return mask[batch, key].bool()

        opened = create_causal_mask(
            self.config, embeds, mask, past_key_values=None, position_ids=positions, or_mask_function=real
        )
        return Qwen3Model.forward(
            self,
            inputs_embeds=embeds,
            attention_mask={"full_attention": opened},
            position_ids=positions,
            use_cache=False,
        )


class Published(_Plain):
    """SentenceTransformer over the published way of building the mask, with its default batch of 32."""

    def __init__(self, shape: Shape, device: str, *, dtype: str) -> None:
        folder = checkpoint(shape)
        network = load_network(folder, dtype=dtype, device=torch.device(device))
        network.separate()
        model = as_transformers(network, folder, contextual=False)
        model.__class__ = PublishedModel
        model.config.is_causal = True  # as published: it is the mask function that opens the mask
        self.model = compose(folder, model, max_tokens=32768)

    def texts(self, texts: list[str]) -> Any:
        return self.model.encode(texts, batch_size=32, quantization="int8")


class LangChain(_Plain):
    """`HuggingFaceEmbeddings` with its defaults."""

    def __init__(self, shape: Shape, device: str) -> None:
        from langchain_huggingface import HuggingFaceEmbeddings

        self.model = HuggingFaceEmbeddings(model_name=str(stock_checkpoint(shape)), model_kwargs={"device": device})

    def texts(self, texts: list[str]) -> Any:
        return self.model.embed_documents(texts)

    def query(self, texts: list[str]) -> Any:
        return self.model.embed_query(texts[0])


class LlamaIndex(_Plain):
    """`HuggingFaceEmbedding` with its defaults."""

    def __init__(self, shape: Shape, device: str) -> None:
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding

        self.model = HuggingFaceEmbedding(str(stock_checkpoint(shape)), device=device)

    def texts(self, texts: list[str]) -> Any:
        return self.model.get_text_embedding_batch(texts)

    def query(self, texts: list[str]) -> Any:
        return self.model.get_query_embedding(texts[0])


class SentenceTransformers(_Plain):
    """A plain SentenceTransformer with its default batch of 32, which builds no mask where nothing is padded."""

    def __init__(self, shape: Shape, device: str, *, dtype: str) -> None:
        from sentence_transformers import SentenceTransformer

        folder = str(stock_checkpoint(shape))
        self.model = SentenceTransformer(folder, device=device, model_kwargs={"dtype": dtype})

    def texts(self, texts: list[str]) -> Any:
        return self.model.encode(texts, batch_size=32)


class OpenVino(_Plain):
    """sentence-transformers' OpenVINO backend, exported on first use."""

    def __init__(self, shape: Shape, device: str) -> None:
        try:
            import optimum.intel  # noqa: F401
        except ImportError as error:
            raise RuntimeError("optimum-intel is not installed; see benchmarks/README.md") from error
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(str(stock_checkpoint(shape)), backend="openvino")

    def texts(self, texts: list[str]) -> Any:
        return self.model.encode(texts, batch_size=32)


@dataclass(frozen=True)
class Entry:
    """A contender's name, how it is made, and where it makes sense.

    Attributes:
        name: What it is called in tables.
        make: Sets it up.
        dtype: What it computes in.
        share: About what part of the processor's matrix product it reaches: for the estimate before a run alone.
        longest: Tokens of the longest text it is given on a CPU; more would take many minutes and show nothing new.
        devices: Where it makes sense.
    """

    name: str
    make: Callable[[Shape, str], Contender]
    dtype: torch.dtype = torch.float32
    share: float = 0.5
    longest: int = 16384
    devices: tuple[str, ...] = ("cpu", "cuda")

    def can(self, tokens: int, device: str) -> bool:
        """Whether it is given a text of so many tokens."""
        return device != "cpu" or tokens <= self.longest


BASELINE = "published way, float32"
PUBLISHED = "published way, bfloat16"
OURS = "ours, bfloat16"
OURS_INT8 = "ours, int8 weights"
OURS_OPENVINO = "ours, OpenVINO, int8 weights"
BFLOAT16 = torch.bfloat16
CPU, CUDA = ("cpu",), ("cuda",)
ENTRIES = [
    Entry("ours, float32", partial(Ours, dtype="float32"), share=0.8, longest=2048),
    Entry(OURS, partial(Ours, dtype="bfloat16"), BFLOAT16, share=0.8, longest=32768),
    Entry(OURS_INT8, partial(Ours, dtype="bfloat16", weights="int8"), BFLOAT16, share=1.2, longest=8192, devices=CPU),
    Entry(
        OURS_OPENVINO,
        partial(Ours, dtype="bfloat16", weights="int8", backend="openvino"),
        BFLOAT16,
        share=1.4,
        longest=2048,
        devices=CPU,
    ),
    Entry(BASELINE, partial(Published, dtype="float32")),
    Entry(PUBLISHED, partial(Published, dtype="bfloat16"), BFLOAT16),
    Entry("sentence-transformers, bfloat16", partial(SentenceTransformers, dtype="bfloat16"), BFLOAT16, devices=CUDA),
    # The same forward pass as the baseline's, but for the mask.
    Entry("langchain-huggingface", LangChain, longest=2048),
    Entry("llama-index-embeddings-huggingface", LlamaIndex, longest=2048),
    Entry("sentence-transformers, OpenVINO", OpenVino, longest=2048, devices=CPU),
]


def chosen(only: list[str] | None = None, *, device: str = "cpu") -> list[Entry]:
    """Return a device's entries whose name contains one of these words, or all."""
    entries = [entry for entry in ENTRIES if device in entry.devices]
    return [entry for entry in entries if not only or any(part in entry.name for part in only)]


def contenders(
    shape: Shape, only: list[str] | None = None, *, device: str = "cpu"
) -> tuple[dict[str, Contender], dict[str, str]]:
    """Set all up in this process, and say of those that could not be why."""
    ready: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    for entry in chosen(only, device=device):
        if entry.dtype == BFLOAT16 and not native_bfloat16(device):
            missing[entry.name] = "this processor emulates bfloat16"
            continue
        try:
            ready[entry.name] = entry.make(shape, device)
            ready[entry.name].texts(["a short text"])  # some load at first use, and some fail at it
        except Exception as error:  # noqa: BLE001  (a peer that cannot run is a row that says so)
            missing[entry.name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ready.pop(entry.name, None)
    return ready, missing
