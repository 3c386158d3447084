"""Rules of serving."""

import re
from collections.abc import Iterator, Sequence

from hra.config import EngineConfig, HttpConfig, LimitsConfig, StreamConfig
from hra.config_rules.interface import Minima, Table, Told

_PORTS = 2**16
_NAME = re.compile(r"[\w.-]+|\[[\da-fA-F:.]+\]")
"""Of a host; an address of IPv6 stands in brackets."""

MINIMA: Minima = {
  EngineConfig: {
    "slots": 1,
    "host_rows": 1,
    "queue": 1,
    "loaders": 1,
    "refresh_seconds": 0,
    "check_seconds": 0,
    "load_seconds": 0.1,
    "sweep_seconds": 0,
    "kinds": 1,
    "listing_seconds": 0.1,
    "retry_seconds": 0,
    "pause_seconds": 0,
    "segment_seconds": 0.1,
  },
  LimitsConfig: {
    "body_mib": 0.001,
    "bodies_mib": 0.001,
    "max_seconds": 0.1,
    "header_seconds": 0.1,
    "body_seconds": 0.1,
    "decode_seconds": 0.1,
    "answer_seconds": 0.1,
    "requests_per_minute": 0,
    "burst": 1,
    "at_once": 0,
    "connections": 1,
    "decoders": 1,
    "decoder_mib": 256,
    "decoder_queue": 0,
  },
  StreamConfig: {"step_seconds": 0.1, "growth": 0, "window_seconds": 1},
  HttpConfig: {"port": 0, "held_mib": 1, "drain_seconds": 1},
}


def _engine(config: EngineConfig) -> Iterator[Told]:
  for field in ("batch_sizes", "bucket_seconds"):
    values = getattr(config, field)
    yield field, _ascends(values), "one or more, ascending from above 0 on"


def _http(config: HttpConfig) -> Iterator[Told]:
  yield "port", config.port < _PORTS, f"below {_PORTS:,}"
  named = all(map(_NAME.fullmatch, config.hosts))
  yield "hosts", named, "names alone, without scheme, port and path"


def _ascends(values: Sequence[float]) -> bool:
  return bool(values) and [0, *values] == sorted({0, *values})


RULES: Table = {EngineConfig: _engine, HttpConfig: _http}
