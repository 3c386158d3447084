"""The one tiny shape of the tests: width 16, 2 layers, 8 labels."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import jax
import numpy as np

from hra.adapters import families
from hra.backbone.conformer import Conformer
from hra.config import (
  AdapterConfig,
  BackboneConfig,
  FrontendConfig,
  OptimizerConfig,
)
from hra.data.batching import Batch
from hra.keys import hash_words
from hra.model import Model
from hra.train import optimizer, state

FRONTEND = FrontendConfig(num_mels=16, fft_length=512, normalize="per_mel")
BACKBONE = BackboneConfig(
  width=16,
  layers=2,
  heads=2,
  feed_forward=32,
  kernel=5,
  subsampling_channels=8,
  vocabulary=8,
)
ADAPTER = AdapterConfig(width=8)
OPTIMIZER = OptimizerConfig(learning_rate=0.01, schedule="cosine")
SAMPLES = 8000
NAMES = ("anna", "bert", "cleo", "dora", "emil", "fina")


def backbone(seed: int = 0, **changes) -> Conformer:
  config = dataclasses.replace(BACKBONE, **changes)
  # Compiled whole, and so cached: op by op it costs every process seconds.
  init = jax.jit(lambda key: Conformer(config, mels=FRONTEND.num_mels, key=key))
  return init(jax.random.key(seed))


def model(adapter: AdapterConfig = ADAPTER, **changes) -> Model:
  config = dataclasses.replace(BACKBONE, **changes)
  return Model(adapter=families.build(adapter, config), frontend=FRONTEND)


STEPS = 20
"""Own steps of a task, and updates of the shared parameters' schedule."""


def optimizers(
  steps: int = STEPS, shared_rate: float = 0.01, warmup: int = 0
) -> state.Optimizers:
  shared = dataclasses.replace(OPTIMIZER, learning_rate=shared_rate)
  rows = dataclasses.replace(OPTIMIZER, warmup_steps=warmup)
  return state.Optimizers(
    shared=optimizer.build_fixed(shared, steps=steps),
    rows=optimizer.build(rows),
  )


def batch(
  tasks: tuple[str, ...],
  *,
  own_step: int = 0,
  own_steps: Mapping[str, int] = MappingProxyType({}),
  weights: Mapping[str, float] = MappingProxyType({}),
  places: int | None = None,
  names: tuple[str, ...] = NAMES,
  utterances: int = 2,
  samples: int = SAMPLES,
  dtype: type = np.float32,
) -> Batch:
  """A batch of tasks whose data are a function of name and own step alone.

  Who is not named in `own_steps` has `STEPS`, in `weights` 1.
  """
  places = places or len(tasks)
  wave = np.zeros((places, utterances, samples), dtype)
  lengths = np.zeros((places, utterances), np.int32)
  labels = np.zeros((places, utterances, 4), np.int32)
  label_lengths = np.zeros((places, utterances), np.int32)
  task = len(names) + np.arange(places, dtype=np.int32)
  words = np.zeros((places, 2), np.uint32)
  steps = np.ones(places, np.int32)
  weight = np.zeros(places, np.float32)
  for place, name in enumerate(tasks):
    words[place] = hash_words(name)
    steps[place] = own_steps.get(name, STEPS)
    weight[place] = weights.get(name, 1.0)
    rng = np.random.default_rng([own_step, *words[place].tolist()])
    task[place] = names.index(name)
    for b in range(utterances):
      lengths[place, b] = rng.integers(6000, SAMPLES)
      size = lengths[place, b]
      wave[place, b, :size] = 0.1 * rng.standard_normal(size)
      label_lengths[place, b] = rng.integers(1, 5)
      count = label_lengths[place, b]
      labels[place, b, :count] = rng.integers(1, 8, count)
  return Batch(
    wave_KBS=wave,
    lengths_KB=lengths,
    labels_KBU=labels,
    label_lengths_KB=label_lengths,
    task_K=task,
    name_hash_K2=words,
    own_step_K=np.full(places, own_step, np.int32),
    own_steps_K=steps,
    shared_weight_K=weight,
  )
