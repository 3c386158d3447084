"""Figures for Prometheus: of requests, and of the engine as it tells them."""

import contextlib
from collections.abc import Iterator

import prometheus_client
from prometheus_client import exposition, metrics_core
from prometheus_client.registry import Collector

from hra.serve.interface import Engine

CONTENT_TYPE = exposition.CONTENT_TYPE_LATEST
_SECONDS = (
  0.005,
  0.01,
  0.025,
  0.05,
  0.1,
  0.25,
  0.5,
  1,
  2.5,
  5,
  10,
  30,
  60,
  300,
)
_METHODS = ("GET", "HEAD", "POST", "WEBSOCKET")
_TOTAL = "_total"


class Metrics:
  """One server's figures; two servers of a process have their own."""

  def __init__(self, engine: Engine):
    self._registry = prometheus_client.CollectorRegistry()
    self._registry.register(_OfEngine(engine))
    self._requests = prometheus_client.Counter(
      "hra_requests",
      "Requests by route, method and status (499: the client hung up).",
      ("route", "method", "status"),
      registry=self._registry,
    )
    self._seconds = prometheus_client.Histogram(
      "hra_request_seconds",
      "From a request's head to the end of its answer.",
      ("route",),
      buckets=_SECONDS,
      registry=self._registry,
    )
    self._running = prometheus_client.Gauge(
      "hra_requests_running",
      "Requests that are not answered yet.",
      registry=self._registry,
    )

  @contextlib.contextmanager
  def running(self) -> Iterator[None]:
    with self._running.track_inprogress():
      yield

  def answered(
    self, route: str, method: str, status: int, seconds: float
  ) -> None:
    known = method if method in _METHODS else "other"
    self._requests.labels(route, known, str(status)).inc()
    self._seconds.labels(route).observe(seconds)

  def told(self) -> bytes:
    return exposition.generate_latest(self._registry)


class _OfEngine(Collector):
  """The engine's figures when they are asked for."""

  def __init__(self, engine: Engine):
    self._engine = engine

  def collect(self) -> Iterator[metrics_core.Metric]:
    for name, value in sorted(self._engine.figures().items()):
      whole = f"hra_engine_{name.removesuffix(_TOTAL)}"
      about = f"The engine's {name}."
      if name.endswith(_TOTAL):
        yield metrics_core.CounterMetricFamily(whole, about, value=value)
      else:
        yield metrics_core.GaugeMetricFamily(whole, about, value=value)
    ready = float(self._engine.ready())
    yield metrics_core.GaugeMetricFamily(
      "hra_engine_ready", "Whether it answers.", value=ready
    )

  def describe(self) -> Iterator[metrics_core.Metric]:
    """Nothing: the engine isn't asked before it serves."""
    return iter(())
