"""Several processes that are one job: who this is, and what all of them agree on.

Enters: what JAX knows of them (`hra.joining`). Leaves: this process's index among
them. What is agreed goes through the coordinator, in the first process,
and not through the devices: it waits for no step and no step waits for it. All
processes call what is collective here in the same order, from their main threads;
with one process nothing here waits for anybody.
"""

import atexit
import contextlib
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple, TypeVar, cast

Value = TypeVar("Value")

_HEARD_SECONDS = 10
"""How long who fails waits for the others to hear of it."""
_LEAVING_SECONDS = 0.3
"""Between a process's last word and its end, at most."""
_PATIENCE_MS = 7 * 24 * 3600 * 1000
"""Of collective calls: who dies meanwhile is missed by their heartbeat."""
_LOOK_SECONDS = 0.5
_ASKED = "hra/asked"
_FAILED = f"{_ASKED}/failed"
_HEARD = "hra/heard"
_GONE = "hra/gone"

_calls = itertools.count()
_ending = threading.Event()
_expected: dict[str, Callable[[str], None]] = {}
"""What is done, in a thread of its own, when a key of the coordinator's is set."""
_acting: list[threading.Thread] = []
"""That do it."""


class _Who(NamedTuple):
  """This process, among all."""

  place: int
  total: int


_who = _Who(0, 1)


def take_part() -> None:
  """Notes who this is, and listens to the others; once JAX knows them."""
  global _who
  state = _state()
  if state.num_processes == 1 or _who.total > 1:
    return
  _who = _Who(state.process_id, state.num_processes)
  _expected[_FAILED] = _leave
  looks = threading.Thread(target=_look, daemon=True)
  looks.start()
  atexit.register(_stop_looking, looks)  # before JAX leaves


def _state() -> Any:
  from jax._src import distributed  # there is no public way to the coordinator

  return distributed.global_state


def index() -> int:
  """This process's place among all."""
  return _who.place


def count() -> int:
  """How many processes there are."""
  return _who.total


def is_first() -> bool:
  """Whether this process does what one alone has to do."""
  return index() == 0


def wait_for_all(name: str) -> None:
  """Returns when all processes have come here."""
  if count() == 1:
    return
  key = _key(name)
  _answered(lambda: _state().client.wait_at_barrier(key, _PATIENCE_MS))


def any_of(value: bool) -> bool:
  """Whether it is true in any process."""
  if count() == 1:
    return value
  key, client = _key("any"), _state().client
  if value:
    client.key_value_set(f"{key}/{index()}", "")
  _answered(lambda: client.wait_at_barrier(f"{key}/all", _PATIENCE_MS))
  return bool(client.key_value_dir_get(f"{key}/"))


def _answered(ask: Callable[[], Value]) -> Value:
  """What the coordinator answers; signals are heard meanwhile, as they wouldn't be
  while this thread is in JAX's client."""
  answer: Future[Value] = Future()

  def wait() -> None:
    try:
      answer.set_result(ask())
    except Exception as error:
      answer.set_exception(error)

  threading.Thread(target=wait, daemon=True).start()
  return answer.result()


def first_says(value: Value) -> Value:
  """What the first process calls this with; made of what JSON has."""
  if count() == 1:
    return value
  key, client = _key("says"), _state().client
  if is_first():
    client.key_value_set(key, json.dumps(value))
  return json.loads(
    _answered(lambda: client.blocking_key_value_get(key, _PATIENCE_MS))
  )


def first_does(do: Callable[[], Value]) -> Value:
  """What the first process alone does, and has done when this returns.

  Args:
    do: returns None, or what JSON has.
  """
  return first_says(cast(Value, do() if is_first() else None))


def fetch(tree: Any, *, by: Literal["all", "first"] = "all") -> Any:
  """Arrays of any sharding on the host; all processes call it.

  Args:
    by: who gets them; from the first alone, others keep no copy and get None.
  """
  import jax  # a leaf: slow to import

  if count() == 1:
    return jax.device_get(tree)

  def whole(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_replicated:
      leaf = _gathered(leaf)
    return jax.device_get(leaf) if by == "all" or is_first() else None

  return jax.tree.map(whole, tree)


def _gathered(leaf: Any) -> Any:
  from jax.experimental import multihost_utils

  if leaf.is_fully_addressable:
    return leaf
  return multihost_utils.process_allgather(leaf, tiled=True)


def _stop_looking(looks: threading.Thread) -> None:
  """Leaves no thread in JAX's client: it would end in a torn down interpreter.

  What somebody has asked is settled by all, though none comes to the point any more:
  who has heard of it waits for the others.
  """
  _ending.set()
  looks.join()
  with contextlib.suppress(RuntimeError):  # the coordinator may be gone
    for act, value in _said():  # here: Python starts no threads any more
      act(value)
  for each in _acting:
    each.join(_HEARD_SECONDS)


def are_gone(error: Exception) -> bool:
  """Whether an error says that other processes of this job died.

  JAX has no exception of its own for that.
  """
  told = ("Gloo", "NCCL", "oordination service", "heartbeat", "Barrier")
  return count() > 1 and any(each in str(error) for each in told)


def fail(message: str, *, code: int) -> int:
  """Ends all other processes with an exit code; returns when they have heard of it.

  Whoever calls this has to end at once, without waiting for others (`os._exit`).

  Returns:
    What to end with: of several failures, the code of the first to be told.
  """
  if count() == 1:
    return code
  _expected.pop(_FAILED, None)  # one line of this process is enough
  client = _state().client
  said = {"process": index(), "message": message, "code": code}
  with contextlib.suppress(RuntimeError):  # the coordinator may be gone
    try:
      client.key_value_set(_FAILED, json.dumps(said))
    except RuntimeError as error:
      if "ALREADY_EXISTS" not in str(error):
        raise
      _part()
      return json.loads(client.key_value_try_get(_FAILED))["code"]
    _wait_for(_HEARD, count() - 1)
    if is_first():
      time.sleep(_LEAVING_SECONDS)
    else:
      client.key_value_set(f"{_GONE}/{index()}", "")
  return code


def hear_others() -> None:
  """Ends here if another process has failed: then what went wrong in this one is
  only what follows from it."""
  if count() > 1:
    time.sleep(3 * _LOOK_SECONDS)


def _leave(said: str) -> None:
  """Ends this process, as another says that it has failed."""
  told = json.loads(said)
  if told["process"] == index():
    return
  print(
    f"hra: stopped, as process {told['process']} of {count()} has failed: "
    f"{told['message']}",
    file=sys.stderr,
    flush=True,
  )
  with contextlib.suppress(RuntimeError):
    _part()
  os._exit(told["code"])


def _part() -> None:
  """Tells who failed that this process knows. The first, with the coordinator,
  leaves last: JAX aborts who loses that."""
  _state().client.key_value_set(f"{_HEARD}/{index()}", "")
  if is_first():
    _wait_for(_GONE, 1)
    _wait_for(_HEARD, count() - 1)
    time.sleep(_LEAVING_SECONDS)


def _wait_for(folder: str, keys: int) -> None:
  """Returns when so many keys are there, or after a while."""
  until = time.monotonic() + _HEARD_SECONDS
  while time.monotonic() < until:
    if len(_state().client.key_value_dir_get(f"{folder}/")) >= keys:
      return
    time.sleep(0.05)


class Agreed:
  """What any process asks for at any time, all do at the same point.

  Nobody waits at a point until somebody asks: then each process tells how many
  points it has passed, in a thread, and stays there until the first has said which
  is the next that nobody has passed. A point costs a lock and no message.
  """

  def __init__(self, name: str):
    """A kind of request; all processes make the same ones in the same order."""
    self._key = _key(name)
    self._round = 0
    self._passed = 0
    self._lock = threading.Lock()
    self._due: tuple[int, str] | None = None
    self._asked: str | None = None
    self._expect()

  def ask(self, why: str) -> None:
    """Asks all processes; the first of several reasons is the one that is told."""
    if self._asked is not None:
      return
    self._asked = why
    if count() > 1:
      try:
        _state().client.key_value_set(self._place, why)
      except RuntimeError as error:
        if "ALREADY_EXISTS" not in str(error):
          raise

  def reached(self) -> str | None:
    """Whether this is the point: the reason, once; all call it as often."""
    if count() == 1:
      why, self._asked = self._asked, None
      return why
    with self._lock:
      self._passed += 1
      if self._due is None or self._passed < self._due[0]:
        return None
      why = self._due[1]
      self._due, self._asked = None, None
      self._round += 1
      self._expect()
    return why

  @property
  def _place(self) -> str:
    return f"{_ASKED}/{self._key}/{self._round}"

  def _expect(self) -> None:
    if count() > 1:
      _expected[self._place] = self._settle

  def _settle(self, why: str) -> None:
    # Held for no longer than messages take: all have noticed.
    seen = f"{self._key}/{self._round}/seen"
    _state().client.wait_at_barrier(seen, _PATIENCE_MS)
    with self._lock:
      self._due = self._next(), why

  def _next(self) -> int:
    """The first point that no process has passed."""
    client, key = _state().client, f"{self._key}/{self._round}"
    client.key_value_set(f"{key}/passed/{index()}", str(self._passed))
    if not is_first():
      return int(client.blocking_key_value_get(f"{key}/point", _PATIENCE_MS))
    passed = [
      int(client.blocking_key_value_get(f"{key}/passed/{each}", _PATIENCE_MS))
      for each in range(count())
    ]
    point = max(passed) + 1
    client.key_value_set(f"{key}/point", str(point))
    client.key_value_delete(self._place)
    if self._round:  # all have come from there
      client.key_value_delete(f"{self._key}/{self._round - 1}/")
    return point


def _look() -> None:
  """Looks for what other processes say, until this one ends.

  A get that blocks would be cheaper, but each that ends without an answer stays
  in the coordinator's memory.
  """
  while not _ending.wait(_LOOK_SECONDS):
    try:
      said = _said()
    except RuntimeError:  # the coordinator is gone: JAX ends this process, too
      break
    _acting[:] = [each for each in _acting if each.is_alive()]
    for act, value in said:
      _acting.append(threading.Thread(target=act, args=(value,), daemon=True))
      _acting[-1].start()


def _said() -> list[tuple[Callable[[str], None], str]]:
  """What is to be done, with what, of all that was expected; in one order."""
  said = sorted(_state().client.key_value_dir_get(f"{_ASKED}/"))
  found = [(_expected.pop(key, None), value) for key, value in said]
  return [(act, value) for act, value in found if act is not None]


def _key(name: str) -> str:
  """A name that all processes give to the same collective call."""
  return f"hra/{next(_calls)}/{name}"
