"""An engine that computes nothing: what it answers tells what it was asked."""

import concurrent.futures
import threading
import zlib

import numpy as np

from hra.dims import SAMPLE_RATE
from hra.evaluate.segments import Segment
from hra.serve import interface
from hra.serve.interface import Answer, Receipt, Resident, Spent, Word

SPEAKERS = ("anna", "bert", "zoë & co", "a:b/c")
BROKEN = "broken"


def text_of(task: str | None, wave_S: np.ndarray) -> str:
  """Differs by speaker and by every sample."""
  sum_ = zlib.crc32(np.ascontiguousarray(wave_S, np.float32).tobytes())
  return f"{task or 'nobody'} said {sum_:08x} <here> & there"


class Engine(interface.Engine):
  """Holds back its answers while `gate` is clear; `told` of them is told at once."""

  def __init__(self, tasks=SPEAKERS, *, words: bool = True):
    self.known = list(tasks)
    self.words = words
    self.gate = threading.Event()
    self.gate.set()
    self.failure: Exception | None = None
    self.asked: list[interface.Request] = []
    self.told: list[int] = []
    """Characters of a text that are certain, one after the other."""
    self.futures: list[concurrent.futures.Future] = []
    self.loaded: list[str] = []
    self.listings = 0
    self.closed = False
    self.broken = False
    self.compiled = threading.Event()
    self.compiled.set()
    self._threads = concurrent.futures.ThreadPoolExecutor(8)

  def submit(self, request):
    self.asked.append(request)
    if self.broken:
      raise interface.Closed("engine", expected="one", got="a broken one")
    if self.failure is not None:
      raise self.failure
    future: concurrent.futures.Future = concurrent.futures.Future()
    self.futures.append(future)
    self._threads.submit(self._answer, request, future)
    return future

  def load(self, task):
    future: concurrent.futures.Future = concurrent.futures.Future()
    if task not in self.known:
      future.set_exception(unknown(task))
    else:
      self.loaded.append(task)
      future.set_result(Resident(task, 3, "ab12"))
    return future

  def unload(self, task):
    there = task in self.loaded
    self.loaded = [each for each in self.loaded if each != task]
    return there

  def resident(self):
    return [Resident(task, 3, "ab12") for task in self.loaded]

  def tasks(self):
    self.listings += 1
    return sorted(self.known)

  def ready(self):
    return self.compiled.is_set() and not (self.closed or self.broken)

  def wait_until_ready(self, timeout=None):
    return self.compiled.wait(timeout) and self.ready()

  def figures(self):
    return {"requests_waiting": 2.0, "loads_total": 5.0}

  def close(self):
    self.closed = True
    self.gate.set()
    self.compiled.set()
    self._threads.shutdown()

  def _answer(self, request, future):
    text = text_of(request.task, request.wave_S)
    for count in self.told if request.progress else ():
      request.progress(text[:count])
    self.gate.wait()
    if not future.set_running_or_notify_cancel():
      return
    if self.closed:
      future.set_exception(
        interface.Closed("engine", expected="an open one", got="a closed one")
      )
      return
    there = request.task in self.known
    if request.task == BROKEN:
      future.set_exception(
        interface.BadSubmodel(
          "/secret/broken.safetensors", expected="a whole file", got="half"
        )
      )
    elif request.task is not None and not there and not request.fallback:
      future.set_exception(unknown(request.task))
    else:
      future.set_result(self._answered(request, there))

  def _answered(self, request, there):
    text = text_of(request.task if there else None, request.wave_S)
    seconds = len(request.wave_S) / SAMPLE_RATE
    first, *rest = text.split(" ")
    middle = seconds / 2
    return Answer(
      text=text,
      seconds=seconds,
      segments=[
        Segment(0.0, middle, first),
        Segment(middle, seconds, " ".join(rest)),
      ],
      words=[Word(0.0, middle, first), Word(middle, seconds, rest[0])]
      if self.words
      else None,
      receipt=_receipt(request.task, there),
      spent=Spent(0.001, 0.002, 0.003),
    )


def _receipt(task, there):
  if there:
    return Receipt(task, "submodel", 3, "ab12", None)
  reason = "asked" if task is None else "unknown"
  return Receipt(task, "backbone", None, None, reason)


def unknown(task):
  return interface.UnknownSpeaker(
    f"/secret/{task}", expected="a Submodel", got="none"
  )
