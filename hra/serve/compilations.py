"""How many programs XLA compiled, thread by thread: none, once an engine serves."""

import functools
import threading
import weakref
from typing import Any

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"
"""Of a program that XLA compiled, or took from its cache on disk."""
_by_thread: weakref.WeakKeyDictionary[threading.Thread, int] = (
  weakref.WeakKeyDictionary()
)


@functools.cache
def listen() -> None:
  """From here on, for all threads."""
  jax.monitoring.register_event_duration_secs_listener(_heard)


def count(threads: "list[threading.Thread]") -> int:
  """Programs that were compiled in these threads."""
  return sum(_by_thread.get(thread, 0) for thread in threads)


def _heard(event: str, duration_secs: float, **told: Any) -> None:
  del duration_secs, told
  if event == _EVENT:
    thread = threading.current_thread()
    _by_thread[thread] = _by_thread.get(thread, 0) + 1
