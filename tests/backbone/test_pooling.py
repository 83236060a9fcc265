"""Span means against a plain mean of each span."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from pplx_embed_integrations.backbone.pooling import span_means


@given(parts=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 150)), min_size=1, max_size=8), data=st.data())
def test_means(parts: list[tuple[int, int]], data: st.DataObject) -> None:
    spans, end = [], 0
    for gap, length in parts:
        spans.append((end + gap, end + gap + length))
        end += gap + length
    spans = data.draw(st.permutations(spans))
    hidden = torch.randn(end + 2, 5)
    expected = torch.stack([hidden[start:stop].double().mean(dim=0) for start, stop in spans])
    torch.testing.assert_close(span_means(hidden, spans).double(), expected, atol=1e-6, rtol=1e-5)


def test_a_long_span_keeps_its_precision() -> None:
    hidden = torch.rand(32_768, 3) + 10
    expected = hidden.double().mean(dim=0)
    torch.testing.assert_close(span_means(hidden, [(0, 32_768)])[0].double(), expected, atol=2e-5, rtol=0)


def test_what_is_not_a_number_stays_in_its_span() -> None:
    hidden = torch.ones(4, 2)
    hidden[0] = torch.nan
    assert span_means(hidden, [(0, 1), (1, 3)])[1].tolist() == [1.0, 1.0]


def test_bfloat16_is_added_up_in_float32() -> None:
    means = span_means(torch.ones(1000, 2, dtype=torch.bfloat16), [(0, 1000)])
    assert means.dtype == torch.float32
    assert means.tolist() == [[1.0, 1.0]]
