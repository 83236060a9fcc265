"""What the server counts, in Prometheus's text format.

Knows names of metrics and how they are read; must not know requests or models beyond their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from .limits import Gate

Totals = Mapping[str, Callable[[], tuple[int, int, int]]]
"""Of each model that counts them: forward passes so far, and the sequences and tokens in them."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one server, in a registry of its own.

    Args:
        gate: Where requests wait.
        batches: Reads what each model's scheduler has run.
    """

    def __init__(self, gate: Gate, batches: Totals) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Read(gate, batches))
        self._requests = Counter(
            "pplx_embed_requests", "Requests answered", ["route", "model", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "pplx_embed_request_seconds",
            "From the first byte of a request to the last of its answer",
            ["route", "model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._texts = Counter("pplx_embed_texts", "Texts and chunks embedded", ["model"], registry=self._registry)
        self._tokens = Counter("pplx_embed_tokens", "Tokens in them", ["model"], registry=self._registry)

    def answered(self, *, route: str, model: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, model, str(status)).inc()
        self._seconds.labels(route, model).observe(seconds)

    def embedded(self, *, model: str, texts: int, tokens: int) -> None:
        """Count what a request had embedded."""
        self._texts.labels(model).inc(texts)
        self._tokens.labels(model).inc(tokens)

    def text(self) -> bytes:
        """Return all of them as they are scraped."""
        return generate_latest(self._registry)


class _Read(Collector):
    """What is read when it is asked for, instead of counted in the way of requests."""

    def __init__(self, gate: Gate, batches: Totals) -> None:
        self._gate, self._batches = gate, batches

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("pplx_embed_queue_requests", "Requests computed or waiting", self._gate.requests)
        yield GaugeMetricFamily("pplx_embed_queue_bytes", "Bytes that they hold", self._gate.held_bytes)
        sequences = SummaryMetricFamily("pplx_embed_batch_sequences", "Sequences in a forward pass", labels=["model"])
        tokens = SummaryMetricFamily("pplx_embed_batch_tokens", "Tokens in a forward pass", labels=["model"])
        for model, read in self._batches.items():
            passes, all_sequences, all_tokens = read()
            sequences.add_metric([model], passes, all_sequences)
            tokens.add_metric([model], passes, all_tokens)
        yield sequences
        yield tokens
