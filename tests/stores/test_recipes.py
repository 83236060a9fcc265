"""Recipes of docs/stores.md that need a server, run on one; those that need none run with the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pplx_embed_integrations.stores.scores import cosines
from tests.postgres import running
from tools.docs import steps

PAGE = Path(__file__).parents[2] / "docs" / "stores.md"


class Pair:
    dimension = 256


def test_two_stages_in_one_statement_of_pgvector() -> None:
    pytest.importorskip("psycopg")
    [block] = [step.code for step in steps(PAGE.read_text(encoding="utf-8")) if "halfvec" in step.code]
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (400, Pair.dimension)).astype(np.int8)
    asked = codes[7] // 2 + rng.integers(-20, 21, Pair.dimension).astype(np.int8)
    with running() as server:
        database = server.database()
        page: dict[str, Any] = {
            "np": np,
            "pair": Pair,
            "texts": [str(number) for number in range(len(codes))],
            "codes": codes,
            "bits": np.packbits(codes >= 0, axis=1),
            "asked": asked,
            "asked_bits": np.packbits(asked >= 0),
            "url": f"host=127.0.0.1 port={database.port} user=tester dbname={database.name}",
        }
        exec(compile(block, str(PAGE), "exec"), page)
        kept = database.execute("SELECT codes::text, bits::text FROM chunks ORDER BY id")
    # What is kept is what was given, to the last code and bit.
    assert [np.array(row[1:-1].split(","), float).tolist() for row, _ in kept] == codes.tolist()
    assert [[int(bit) for bit in row] for _, row in kept] == (codes >= 0).astype(int).tolist()
    scores = cosines(asked, codes)
    found = page["found"]
    assert found[0][:2] == (7, "7")
    assert len(found) == 10
    for number, _, cosine in found:
        assert cosine == pytest.approx(scores[number], abs=1e-6)
