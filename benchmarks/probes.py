"""Measurements that need a process of their own: memory peaks, cold starts.

Knows one thing a function, and prints it as JSON; must not know the other measurements.
"""

import ctypes
import gc
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Memory:
    """Resident memory while a block runs, in bytes above where it began."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self.start = self.peak = self.now

    @property
    def now(self) -> int:
        resident: int = self._process.memory_info().rss
        return resident

    @contextmanager
    def watched(self) -> Iterator[None]:
        _trim()
        self.start = self.peak = self.now
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.003):
                self.peak = max(self.peak, self.now)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            self.peak = max(self.peak, self.now)
            done.set()
            thread.join()

    @property
    def grown(self) -> int:
        return self.peak - self.start


def _trim() -> None:
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def lists(way: str, rows: str, width: str) -> dict[str, float]:
    """From int8 codes to unit-length Python floats: processor seconds, and megabytes held by the result."""
    import numpy as np

    from pplx_embed_integrations.vectors import quantize, to_lists

    from .measure import pooled_floats

    codes = quantize(pooled_floats(int(rows), int(width)))
    memory = Memory()
    with memory.watched():
        started = time.process_time()
        if way == "ours":
            made = to_lists(codes, normalize=True)
        else:
            floats = codes.astype(np.float32)
            floats /= np.linalg.norm(floats, axis=1, keepdims=True)
            made = floats.tolist()
            del floats
        seconds = time.process_time() - started
    _trim()
    return {"seconds": seconds, "megabytes_held": (memory.now - memory.start) / 1e6, "rows": len(made)}


def load(folder: str, dtype: str) -> dict[str, float]:
    """Loading into a dtype: seconds, and the peak as a multiple of the model's size in that dtype."""
    import torch
    import transformers.models.qwen3.modeling_qwen3  # noqa: F401  (its import is no part of loading)

    from pplx_embed_integrations import PplxEncoder

    encoder = PplxEncoder(folder, dtype=dtype, device="cpu")
    torch.randn(64, 64) @ torch.randn(64, 64)
    stored = (Path(folder) / "model.safetensors").stat().st_size
    memory = Memory()
    with memory.watched():
        started = time.perf_counter()
        encoder.load()
        seconds = time.perf_counter() - started
    size = stored // 2 if dtype == "bfloat16" else stored
    return {"seconds": seconds, "peak_over_size": memory.grown / size}


def document(shape_name: str, dtype: str, way: str, tokens: str, layers: str) -> dict[str, float]:
    """One document: seconds, and peak memory beyond the loaded model in megabytes.

    Layers come one after the other and leave nothing behind, so a model of a few of them has the peak of all.
    """
    from dataclasses import replace

    from .checkpoints import SHAPES
    from .contenders import Ours, Published
    from .workloads import Writer

    shape = replace(SHAPES[shape_name], layers=int(layers))
    contender = Ours(shape, "cpu", dtype=dtype) if way == "ours" else Published(shape, "cpu", dtype=dtype)
    writer = Writer(Path(__file__).parent.parent / "tests" / "golden" / "replica-v1")
    chunks = [writer.text(255) for _ in range(int(tokens) // 256)]
    contender.document(chunks[:1])
    memory = Memory()
    with memory.watched():
        started = time.perf_counter()
        contender.document(chunks)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "megabytes": memory.grown / 1e6}


def card(shape_name: str, layers: str, dtype: str, way: str, tokens: str) -> dict[str, float]:
    """Memory on a CUDA card: the peak while loading as a multiple of the model, then that of a document beyond it."""
    from dataclasses import replace

    import torch

    from .checkpoints import SHAPES
    from .contenders import Ours, Published
    from .workloads import Writer

    def fresh() -> int:
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()

    shape = replace(SHAPES[shape_name], layers=int(layers))
    started = fresh()
    contender = Ours(shape, "cuda", dtype=dtype) if way == "ours" else Published(shape, "cuda", dtype=dtype)
    contender.document(["a short text"])
    peak = torch.cuda.max_memory_allocated() - started
    loaded = fresh()
    writer = Writer(Path(__file__).parent.parent / "tests" / "golden" / "replica-v1")
    chunks = [writer.text(255) for _ in range(int(tokens) // 256)]
    contender.document(chunks)
    return {
        "gigabytes": (loaded - started) / 1e9,
        "peak_over_size": peak / (loaded - started),
        "megabytes": (torch.cuda.max_memory_allocated() - loaded) / 1e6,
    }


def attention_on_card(*lengths: str) -> dict[str, dict[str, float]]:
    """TFLOP/s of each attention kernel on a CUDA card: sequences of one length, 16,384 tokens or one sequence."""
    import torch

    from pplx_embed_integrations.backbone.qwen3.attention import packed_attention
    from pplx_embed_integrations.backbone.qwen3.varlen import PackedLayout

    from .measure import interleaved, medians

    found: dict[str, dict[str, float]] = {}
    for number_type in (torch.float32, torch.bfloat16):
        for size in map(int, lengths):
            count = max(1, 16384 // size)
            parts = torch.randn(count * size, 32, 128, device="cuda").to(number_type).split([16, 8, 8], dim=1)
            q, k, v = (part.transpose(0, 1)[None] for part in parts)
            layout = PackedLayout([size] * count, device=q.device)

            def run(kernel: str, operands: tuple[torch.Tensor, ...] = (q, k, v), layout: PackedLayout = layout) -> None:
                packed_attention(*operands, layout=layout, scaling=128**-0.5, kernel=kernel)  # type: ignore[arg-type]
                torch.cuda.synchronize()

            with torch.inference_mode():
                kernels = {kernel: lambda kernel=kernel: run(kernel) for kernel in ("sdpa", "varlen")}
                interleaved(kernels, rounds=2)
                times = medians(interleaved(kernels, rounds=5))
            flop = 4 * count * 16 * size * size * 128
            name = f"{str(number_type).removeprefix('torch.')}, {count} x {size} tokens"
            found[name] = {kernel: flop / seconds / 1e12 for kernel, seconds in times.items()}
    return found


def cold(way: str, folder: str, dtype: str) -> dict[str, float]:
    """From nothing imported to the first vector."""
    started = time.perf_counter()
    if way == "langchain":
        from pplx_embed_integrations.langchain import PplxEmbeddings

        PplxEmbeddings(query_model=folder, document_model=folder, dtype=dtype).embed_query("a first query")
    elif way == "llama-index":
        from pplx_embed_integrations.llama_index import PplxEmbedding

        PplxEmbedding(query_model=folder, document_model=folder, dtype=dtype).get_query_embedding("a first query")
    else:
        from sentence_transformers import SentenceTransformer

        SentenceTransformer(folder, model_kwargs={"dtype": dtype}).encode("a first query")
    return {"seconds": time.perf_counter() - started}


def attention(length: str, dtype: str, threads: str) -> dict[str, float]:
    """GFLOP/s of each attention kernel on sequences of one length, 2,048 tokens or one sequence."""
    import torch

    from pplx_embed_integrations.backbone.qwen3.attention import packed_attention
    from pplx_embed_integrations.backbone.qwen3.varlen import PackedLayout

    from .measure import interleaved, medians

    torch.set_num_threads(int(threads))
    size, number_type = int(length), getattr(torch, dtype)
    count = max(1, 2048 // size)
    q, k, v = (torch.randn(1, count * size, heads, 128).to(number_type).transpose(1, 2) for heads in (16, 8, 8))
    layout = PackedLayout([size] * count, device=q.device)
    with torch.inference_mode():
        kernels = {
            kernel: lambda kernel=kernel: packed_attention(q, k, v, layout=layout, scaling=128**-0.5, kernel=kernel)
            for kernel in ("sdpa", "blocked")
        }
        interleaved(kernels, rounds=1)
        times = medians(interleaved(kernels, rounds=5))
    return {name: 4 * count * 16 * size * size * 128 / seconds / 1e9 for name, seconds in times.items()}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
