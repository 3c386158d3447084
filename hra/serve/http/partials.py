"""What is heard of a recording while it still comes in.

The last seconds are heard anew as they grow, by the engine as any other request, one at
a time; where they have become long they are cut in a quiet place, and what is before
it stays as it was said. So audio is heard some six times, however it is sent,
and a busy engine leaves partial texts out.
"""

import math
from collections.abc import Awaitable, Callable

from hra.config import StreamConfig
from hra.dims import SAMPLE_RATE
from hra.serve import interface
from hra.serve.http.samples import Samples, quietest

Hear = Callable[[interface.Request], Awaitable[interface.Answer]]
Tell = Callable[[str, float], Awaitable[None]]
"""(text so far, seconds it is of)."""

_LATEST = 0.75
"""Part of a window behind which it is cut."""


async def tell_partials(
  hear: Hear,
  tell: Tell,
  samples: Samples,
  asked: interface.Request,
  *,
  config: StreamConfig,
) -> None:
  """Tells what is heard, until it is cancelled.

  Args:
    hear: the engine.
    asked: what is asked of it, but for the samples.

  Raises:
    InputError: the engine can't answer, for another reason than that it is busy.
  """
  said: list[str] = []
  start = 0
  step = _samples(config.step_seconds)
  window = _samples(config.window_seconds)
  needed = step
  while True:
    await samples.more_than(start + needed)
    stop, cut = len(samples), False
    if stop - start >= window:
      stop, cut = _cut(samples, start, config), True
    try:
      heard = await hear(asked._replace(wave_S=samples.between(start, stop)))
    except interface.Overloaded:
      needed = stop - start + step
      continue
    if cut:
      said.append(heard.text)
      rest = len(samples) - stop
      start, needed = stop, max(step, rest)
      if step <= rest < window:
        continue  # what is behind it is told at once
      text = _joined(said)
    else:
      grown = math.ceil((stop - start) * config.growth)
      needed = stop - start + max(step, grown)
      text = _joined([*said, heard.text])
    await tell(text, stop / SAMPLE_RATE)


def _cut(samples: Samples, start: int, config: StreamConfig) -> int:
  """Where a window that begins there ends: in the quietest of its last part."""
  stop = start + _samples(config.window_seconds)
  first = start + int((stop - start) * _LATEST)
  return first + quietest(samples.between(first, stop))


def _joined(texts: list[str]) -> str:
  return " ".join(text for text in texts if text)


def _samples(seconds: float) -> int:
  return max(1, round(seconds * SAMPLE_RATE))
