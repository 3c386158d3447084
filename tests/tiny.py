"""The one tiny shape of the tests: width 16, 2 layers, 8 labels."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np

from hra.adapters import families, spaces
from hra.backbone.network import Backbone
from hra.config import (
  AdapterConfig,
  BackboneConfig,
  FrontendConfig,
  OptimizerConfig,
  SpaceConfig,
)
from hra.data import settings
from hra.data.batching import Batch
from hra.keys import hash_words
from hra.model import Model
from hra.nn import int8
from hra.train import optimizer, state
from hra.train.step import Terms

LSTM = MappingProxyType(
  {"encoder": "lstm", "heads": 4, "feed_forward": 256, "kernel": 15}
)
"""Changes of `BACKBONE` that make it one of LSTMs."""
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
TABLE = SpaceConfig()
EMBEDDING = SpaceConfig(kind="embedding", size=4, rank=3)
OFFSET = SpaceConfig(kind="offset")
OPTIMIZER = OptimizerConfig(learning_rate=0.01, schedule="cosine")
SAMPLES = 8000
NO_LABELS = np.zeros(0, np.int32)
"""CTC's logits need none."""
NAMES = ("anna", "bert", "cleo", "dora", "emil", "fina")


_MADE: dict[str, Backbone] = {}


def backbone(seed: int = 0, **changes) -> Backbone:
  """A new one, whoever changes it or gives it away; equal ones are drawn once."""
  config = dataclasses.replace(BACKBONE, **changes)
  name = repr((seed, config, jax.config.read("jax_enable_x64")))
  if name not in _MADE:
    with jax.ensure_compile_time_eval():  # also while something is traced
      _MADE[name] = _drawn(seed, config)
  return jax.tree.map(jnp.copy, _MADE[name])


def _drawn(seed: int, config: BackboneConfig) -> Backbone:
  def init(key: jax.Array) -> Backbone:
    made = Backbone(config, mels=FRONTEND.num_mels, key=key)
    if config.weights == "int8":
      int8.quantise(made.layers)
    return made

  # Compiled whole, and so cached: op by op it costs every process seconds.
  return jax.jit(init)(jax.random.key(seed))


def model(adapter: AdapterConfig = ADAPTER, **changes) -> Model:
  config = dataclasses.replace(BACKBONE, **changes)
  built = families.build(adapter, config, mels=FRONTEND.num_mels)
  return Model(adapter=built, frontend=FRONTEND)


STEPS = 20
"""Own steps of a task, and updates of the shared parameters' schedule."""


def optimizers() -> state.Optimizers:
  adamw = optimizer.build(b1=OPTIMIZER.b1, b2=OPTIMIZER.b2)
  return state.Optimizers(shared=adamw, rows=adamw)


def space(
  adapter: AdapterConfig = ADAPTER,
  kind: SpaceConfig = TABLE,
  **changes,
) -> spaces.TaskSpace:
  """A space of rows for the tiny backbone."""
  built = model(adapter, **changes).adapter
  return spaces.build(kind, adapter=built, family=adapter)


def terms(*, shared_rate: float = 0.01, steps: int = STEPS, **others) -> Terms:
  """Shared parameters that train for `steps` joint steps."""
  shared = dataclasses.replace(OPTIMIZER, learning_rate=shared_rate)
  key = jax.random.key(1)
  return Terms(key, settings.settings(shared, steps=steps), **others)


def batch(
  tasks: tuple[str, ...],
  *,
  own_step: int = 0,
  own_steps: Mapping[str, int] = MappingProxyType({}),
  weights: Mapping[str, float] = MappingProxyType({}),
  rows: OptimizerConfig = OPTIMIZER,
  given: settings.Given = MappingProxyType({}),
  places: int | None = None,
  names: tuple[str, ...] = NAMES,
  utterances: int = 2,
  samples: int = SAMPLES,
  dtype: type = np.float32,
) -> Batch:
  """A batch of tasks whose data are a function of name and own step alone.

  Who is not named in `own_steps` has `STEPS`, in `weights` 1; rows are updated as
  `rows` says, but for what is `given`.
  """
  places = places or len(tasks)
  wave = np.zeros((places, utterances, samples), dtype)
  lengths = np.zeros((places, utterances), np.int32)
  labels = np.zeros((places, utterances, 4), np.int32)
  label_lengths = np.zeros((places, utterances), np.int32)
  task = len(names) + np.arange(places, dtype=np.int32)
  words = np.zeros((places, 2), np.uint32)
  told = settings.of_tasks(
    tasks,
    rows,
    steps_N=[own_steps.get(name, STEPS) for name in tasks],
    given=given,
  )
  empty = [(0, places - len(tasks))]
  weight = np.zeros(places, np.float32)
  for place, name in enumerate(tasks):
    words[place] = hash_words(name)
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
    augment_KB=lengths > 0,
    task_K=task,
    name_hash_K2=words,
    own_step_K=np.full(places, own_step, np.int32),
    settings_K=settings.Settings(*(np.pad(leaf, empty) for leaf in told)),
    shared_weight_K=weight,
  )
