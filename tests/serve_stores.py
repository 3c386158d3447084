"""Speakers of a tiny backbone, and a store of them that can fail."""

import dataclasses
import threading
import time
from typing import Any, NamedTuple

import adapted
import jax
import numpy as np
import tiny

from hra.adapters import families
from hra.backbone import store
from hra.data.tokenizer import Tokenizer
from hra.errors import InputError, StorageError
from hra.evaluate.recognizer import Recognizer, load_backbone
from hra.submodels import Submodel

TIMEOUT = 60
SCALES = {"lora": 0.3}
"""Of rows that multiply what weights do: larger ones multiply rounding, too."""
NEAR = {"causal": True, "left_context": 2}
"""What is half a second away is not heard: pieces are as good as the whole."""


def recognizer(folder, *, quiet: float = 0.0, **changes) -> Recognizer:
  """Louder than random, so that what is heard depends on who speaks.

  Args:
    quiet: by which a transducer's blank is likelier.
  """
  frontend = dataclasses.replace(tiny.FRONTEND, normalize="none")
  backbone = jax.tree.map(lambda leaf: 2 * leaf, tiny.backbone(**changes))
  if quiet:
    bias = backbone.head.output.bias
    bias[...] = bias[...].at[0].add(quiet)
  tokenizer = Tokenizer.train(["abcde edcba"], vocabulary=8, kind="char")
  store.save(folder, backbone, frontend=frontend, tokenizer=tokenizer, about={})
  return load_backbone(folder)


def submodel(
  recognizer,
  task: str,
  seed: int,
  *,
  adapter=tiny.ADAPTER,
  shared_seed: int = 5,
  version: int = 1,
  scale: float | None = None,
  **changes: Any,
) -> Submodel:
  config, mels = recognizer.stored.config, recognizer.stored.frontend.width
  built = families.build(adapter, config, mels=mels)
  key = jax.random.key(0)
  scale = scale or SCALES.get(adapter.family, 1.0)
  row = adapted.random(
    jax.eval_shape(built.init_task, key), seed=seed, scale=scale
  )
  shared = jax.eval_shape(built.init_shared, key)
  found = Submodel(
    task=task,
    adapter=adapter,
    row=row,
    shared=adapted.random(shared, seed=shared_seed, scale=0.5),
    backbone_fingerprint=recognizer.stored.fingerprint,
    shared_fingerprint=f"of {shared_seed}",
    summary={},
    version=version,
    fingerprint=f"{task} {seed}",
  )
  return dataclasses.replace(found, **changes)


def wave(seconds: float, seed: int = 0) -> np.ndarray:
  """Noise of a colour that changes four times a second."""
  rng = np.random.default_rng(seed)
  parts = []
  for _ in range(max(round(4 * seconds), 1)):
    tone = np.sin(np.arange(4000) * rng.uniform(0.05, 2))
    parts.append(rng.uniform(0.01, 0.3) * tone)
  noise = 1e-3 * rng.standard_normal(4000 * len(parts))
  return (np.concatenate(parts) + noise).astype(np.float32)


class Gate:
  """Holds the device before each batch, until it is opened."""

  def __init__(self, engine, monkeypatch):
    self.heard = []
    """Of each batch, its items."""
    self._there, self._open = threading.Event(), threading.Event()
    hear = engine._device.hear

    def held(turn):
      if turn.batch is not None:
        self.heard.append(turn.batch.items)
        self._there.set()
        assert self._open.wait(TIMEOUT)
      return hear(turn)

    monkeypatch.setattr(engine._device, "hear", held)

  def arrive(self) -> None:
    """Waits until a batch is held."""
    assert self._there.wait(TIMEOUT)

  def open(self) -> None:
    self._open.set()


class _Kind(NamedTuple):
  adapter: Any
  backbone_fingerprint: str
  shared_fingerprint: str


class _Entry(NamedTuple):
  task: str
  kind: _Kind


class Shelf:
  """A store in memory; `gone`, `slow` and `bad` are its faults."""

  def __init__(self, *submodels: Submodel):
    self.gone = False
    self.slow = threading.Event()
    """Set: reads and looks wait until it is cleared."""
    self.reading = threading.Event()
    """Set: what is read has been found, and is not handed on before it is cleared."""
    self.bad: dict[str, Exception] = {}
    self.refused: list[InputError] = []
    """Of files that are no Submodels."""
    self.reads: list[str] = []
    self.looks: list[str] = []
    self._held = {each.task: (each, 0) for each in submodels}

  def put(self, submodel: Submodel) -> None:
    _, stamp = self._held.get(submodel.task, (None, 0))
    self._held[submodel.task] = submodel, stamp + 1

  def delete(self, task: str) -> None:
    del self._held[task]

  def stamp(self, task: str) -> int:
    self.looks.append(task)
    self._answer()
    return self._held[task][1]

  def __getitem__(self, task: str) -> Submodel:
    self.reads.append(task)
    self._answer()
    found = self._held[task][0]
    while self.reading.is_set():
      time.sleep(0.005)
    if task in self.bad:
      raise self.bad[task]
    return found

  def listing(self) -> tuple[list[_Entry], list[InputError]]:
    self._answer()
    found = [
      _Entry(
        each.task,
        _Kind(each.adapter, each.backbone_fingerprint, each.shared_fingerprint),
      )
      for each, _ in self._held.values()
    ]
    return found, self.refused

  def _answer(self) -> None:
    while self.slow.is_set():
      time.sleep(0.005)
    if self.gone:
      raise StorageError("store", expected="a folder", got="nothing there")
