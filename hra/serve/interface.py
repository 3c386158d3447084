"""What a request asks of the engine, what it is answered, and why it may not be.

`Engine` is all that the HTTP side knows of the one that computes
(`hra.serve.engine`).
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from hra.errors import InputError
from hra.evaluate.segments import Segment
from hra.evaluate.words import Word


class Request(NamedTuple):
  """One recording of one speaker, or of nobody in particular."""

  wave_S: np.ndarray
  """float32 in [-1, 1] at 16 kHz."""
  task: str | None
  """Whose Submodel is to be used; None asks for the bare backbone."""
  fallback: bool = False
  """Whether the bare backbone may answer where the store has no such Submodel."""
  guard: bool = True
  """Whether it answers for a Submodel that was no better on its dev recordings."""
  progress: Callable[[str], None] | None = None
  """Told, from any thread, what of a recording that is heard in pieces is certain
  before all of it is heard: ever longer beginnings of the text, of whole words."""


Reason = Literal["asked", "unknown", "not better"]
"""Why the bare backbone answered: it was asked for; the store has no Submodel of
the speaker; or that was no better than the backbone on dev."""


class Receipt(NamedTuple):
  """What an answer was made with."""

  task: str | None
  """Who was asked for."""
  applied: Literal["submodel", "backbone"]
  version: int | None
  """Of the Submodel in its store; None where the backbone answered."""
  fingerprint: str | None
  """Of the Submodel's content; likewise."""
  reason: Reason | None
  """Why the backbone answered; None where a Submodel did."""


class Spent(NamedTuple):
  """Seconds of a request's life in the engine."""

  queued: float
  """Waiting for a place in a batch, its Submodel being there."""
  loading: float
  """Waiting for its Submodel to come from the store to the device; 0 if it was
  there."""
  computing: float


@dataclasses.dataclass(frozen=True)
class Answer:
  """A transcript, and how it came about."""

  text: str
  seconds: float
  """Of the recording."""
  segments: Sequence[Segment]
  """At least one where anything was said."""
  words: Sequence[Word] | None
  """None where the decoder doesn't know when it said something."""
  receipt: Receipt
  spent: Spent


class Resident(NamedTuple):
  """A Submodel that is on the device."""

  task: str
  version: int
  fingerprint: str


class UnknownSpeaker(InputError):
  """The store has no Submodel of that name."""


class TooLong(InputError):
  """A recording is longer than the engine hears."""


class Overloaded(InputError):
  """Too many requests wait, or all slots are in use; to be tried again later."""


class TooMany(Overloaded):
  """One client has so much at once that others would have too little."""


class StoreGone(InputError):
  """The store can't be reached; who is resident is served all the same."""


class BadSubmodel(InputError):
  """It is damaged, of another backbone, or of a family that has no slots."""


class Closed(InputError):
  """The engine has been shut down."""


class Failed(InputError):
  """The device, the store's code or ours failed, which may pass."""


REFUSALS = (
  UnknownSpeaker,
  TooLong,
  Overloaded,
  StoreGone,
  BadSubmodel,
  Closed,
  Failed,
)
"""All that futures fail with."""


class Engine(Protocol):
  """Safe to call from any thread; nothing here waits for the device."""

  words: bool
  """Whether its decoder knows when it says a word."""

  def submit(self, request: Request) -> "concurrent.futures.Future[Answer]":
    """Puts a request in the queue.

    The future may be cancelled: what is not computed yet never is. It fails with one
    of this module's errors.

    Raises:
      Overloaded: the queue is full.
      TooLong: it hears no recording of that length.
      Closed: it is shut down.
    """
    ...

  def load(self, task: str) -> "concurrent.futures.Future[Resident]":
    """Brings the store's current version of a Submodel to the device."""
    ...

  def unload(self, task: str) -> bool:
    """Takes it off the device and out of the host's memory; whether it was there."""
    ...

  def resident(self) -> list[Resident]:
    """Those on the device, the latest used first."""
    ...

  def tasks(self) -> list[str]:
    """Whose Submodels the store holds, in order; reads its index alone.

    Raises:
      StoreGone: it can't be reached.
    """
    ...

  def ready(self) -> bool:
    """Whether all programs are compiled and the device answers."""
    ...

  def wait_until_ready(self, timeout: float | None = None) -> bool:
    """Returns when it is, or never will be, or after so many seconds; whether it
    is."""
    ...

  def figures(self) -> dict[str, float]:
    """Counters and gauges by name, for `/metrics`: `requests_waiting`,
    `slots_used`, `host_rows`, `loads_total`, `load_seconds_total`, `evictions_total`,
    `batches_total`, `batch_places_total` (padding included), `batch_requests_total`,
    `audio_seconds_total`, `compilations_total`."""
    ...

  def close(self) -> None:
    """Answers what waits with `Closed` and ends its threads."""
    ...
