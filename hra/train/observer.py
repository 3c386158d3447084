"""What a loop says of itself -> metrics of its time, profiles, a word about stalls.

The one object of a training loop that looks on: `doing` around what isn't a step,
`step` and `done` around a step. It changes nothing of what is trained.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import jax
from etils import epath

from hra.config import TrainConfig
from hra.train.goodput import Doing, Goodput
from hra.train.profiler import Profiler
from hra.train.watchdog import Beat, Watchdog

Ideal = Callable[[Any, Any, Any], float]
"""(state, frozen, batch) -> seconds of a step if devices did nothing but its FLOPs."""


class Observer:
  """Looks on, as a context, from the loop's start to its end."""

  def __init__(
    self,
    workdir: epath.Path,
    config: TrainConfig,
    *,
    position: int,
    since: float,
    profile: range | None = None,
    ideal: Ideal | None = None,
  ):
    """Begins to look on.

    Args:
      position: that training goes on from.
      since: of `time.monotonic`: when the loop's preparations began.
      profile: steps to capture.
      ideal: None on devices whose speed isn't known.
    """
    self._goodput = Goodput(
      workdir,
      position=position,
      began=time.time() - (time.monotonic() - since),
      writes=jax.process_index() == 0,
    )
    self._profiler = Profiler(
      workdir, steps=profile, next_steps=config.profile_steps
    )
    self._watchdog = Watchdog(
      lambda: self._beat,
      seconds=config.stall_seconds,
      abort=config.stall_abort,
    )
    self._ideal = ideal
    self._known: dict[tuple[tuple[int, ...], ...], float] = {}
    """Shapes that are compiled, and their ideal seconds."""
    self._last: Any = None
    """Of the last step's results."""
    self._window = dict.fromkeys(self._goodput.seconds, 0.0)
    self._fast = 0.0
    """Ideal seconds of the window's steps."""
    self._turned = since
    self._beat = Beat(position, "start", time.monotonic())

  def __enter__(self) -> Self:
    self._stack = contextlib.ExitStack()
    self._stack.enter_context(self._watchdog)
    self._stack.enter_context(self._profiler)
    return self

  def __exit__(self, *raised: Any) -> None:
    self._stack.__exit__(*raised)

  @contextlib.contextmanager
  def doing(self, what: Doing) -> Iterator[None]:
    """Whatever is neither in here nor before the first such is a step."""
    before: Any = self._beat.doing
    self._turn(what)
    try:
      yield
    finally:
      # While devices still compute, nobody waits for data.
      waited = what == "data" and self._last is not None
      busy = waited and not self._last.is_ready()
      self._turn(
        "step" if before == "start" else before, spent="step" if busy else None
      )

  @contextlib.contextmanager
  def step(
    self, position: int, state: Any, frozen: Any, batch: Any
  ) -> Iterator[None]:
    """Around the dispatch of a step."""
    shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
    doing: Doing = "step" if shapes in self._known else "compile"
    with self._profiler.step(position, state), self.doing(doing):
      if shapes not in self._known:
        self._known[shapes] = (
          self._ideal(state, frozen, batch) if self._ideal else 0.0
        )
      yield
    self._fast += self._known[shapes]

  def done(self, position: int, state: Any, metrics: Any) -> None:
    """After a step is dispatched."""
    self._last = jax.tree.leaves(metrics)[0]
    self.alive(position)
    self._profiler.done(position, state)

  def alive(self, position: int | None = None) -> None:
    """Something went on."""
    if position is not None:
      self._beat = self._beat._replace(position=position)
    self._turn(self._beat.doing)  # type: ignore[arg-type]
    self._goodput.keep()

  @contextlib.contextmanager
  def saving(self, position: int) -> Iterator[None]:
    """Around a save."""
    with self.doing("save"):
      yield
    self._goodput.mark(position)

  def line(self) -> dict[str, float | None]:
    """Metrics of the time since the last line.

    `mfu` is of the time of steps and of waiting for data, `goodput` of all since the
    run's first start.
    """
    self._turn(self._beat.doing)  # type: ignore[arg-type]
    window = self._window
    busy = window["step"] + window["data"]
    line = {
      "data_seconds": window["data"],
      "goodput": self._goodput.share(),
      "mfu": self._fast / busy if self._ideal and busy else None,
    }
    self._window, self._fast = dict.fromkeys(window, 0.0), 0.0
    return line

  def _turn(self, doing: Doing, *, spent: Doing | None = None) -> None:
    """Books the time since the last turn, by default on what was done."""
    now = time.monotonic()
    booked: Any = spent or self._beat.doing
    self._goodput.spend(booked, now - self._turned)
    self._window[booked] += now - self._turned
    self._turned = now
    self._beat = Beat(self._beat.position, doing, now)
