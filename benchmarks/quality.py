"""What int8 and bits cost in retrieval, in the quantised store: `python -m benchmarks.quality COLLECTION`.

A collection in the BEIR layout is cut into chunks and embedded by a pair; a document's score is that of its best chunk.
float32 is searched by an exact product, the stored forms through `ChunkTable.search`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from ir_measures import nDCG

from benchmarks.machine import describe
from pplx_embed_integrations import PplxBiEncoder
from pplx_embed_integrations.cli.splitting import Splitter
from pplx_embed_integrations.evaluation import load_collection
from pplx_embed_integrations.stores import Chunk, ChunkTable, StoredDocument

CHUNK_TOKENS, DEPTH, K = 64, 300, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--model", default="miniature")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    pair = PplxBiEncoder(arguments.model)
    collection = load_collection(arguments.collection)
    splitter = Splitter(chunk_tokens=CHUNK_TOKENS, count_tokens=pair.document.count_tokens)
    texts = {name: [part.text for part in splitter.split(text)] for name, text in collection.documents.items()}
    texts = {name: chunks for name, chunks in texts.items() if chunks}
    documents = [
        StoredDocument(name, [Chunk(f"{name}/{number}", text) for number, text in enumerate(chunks)])
        for name, chunks in texts.items()
    ]
    queries = list(collection.queries)
    asked = {form: pair.encode_queries([collection.queries[q] for q in queries], quantization=form) for form in FORMS}
    rows = {form: pair.encode_documents(list(texts.values()), quantization=form) for form in FORMS}
    owners = [document.key for document in documents for _ in document.chunks]

    exact = unit(asked[None]) @ unit(np.concatenate(rows[None])).T
    runs = {"float32, exact": {q: best(owners, scores) for q, scores in zip(queries, exact, strict=True)}}
    stores = {"int8": ("both", "int8", {}), "bits": ("bits", "binary", {})}
    overlap = []
    for name, (keep, form, options) in stores.items():
        with tempfile.TemporaryDirectory() as folder:
            table = ChunkTable(folder, made_by={"model": arguments.model}, dimensions=pair.dimension, keep=keep)
            table.replace(documents, rows[form])
            found = [table.search(codes, k=DEPTH, **options) for codes in asked["int8"]]
            runs[f"{name}, two stages"] = {
                q: best([hit.document for hit in hits], [hit.score for hit in hits])
                for q, hits in zip(queries, found, strict=True)
            }
            if keep == "both":
                for codes in asked["int8"]:
                    last = table.search(codes, k=K, by="int8")[-1].score
                    overlap.append(sum(hit.score >= last for hit in table.search(codes, k=K)) / K)
    result: dict[str, Any] = {
        "chunks": len(owners),
        "queries": len(queries),
        "recall@10 of two stages against exact int8": float(np.mean(overlap)),
        **{
            name: float(ir_measures.calc_aggregate([nDCG @ K], collection.judgements, run)[nDCG @ K])
            for name, run in runs.items()
        },
    }
    print(json.dumps(result, indent=1))
    if arguments.output:
        arguments.output.write_text(json.dumps({"machine": describe("cpu"), "results": result}, indent=1) + "\n")


FORMS: tuple[Any, ...] = (None, "int8", "binary")


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def best(owners: list[str], scores: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for owner, score in zip(owners, scores, strict=True):
        found[owner] = max(found.get(owner, -2.0), float(score))
    return found


if __name__ == "__main__":
    main()
