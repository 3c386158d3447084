"""How long it takes to register many adapters: PEFT's ways, a stacked layout's, ours.

Enters: a converted backbone, its original, LoRA folders and a store of the same rows.
Leaves: seconds, by adapter and in all. PEFT's grow with every adapter that is there
already, so that fewer are timed and a straight line through their seconds says the rest.
"""

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import serving_engine
import tqdm
from etils import epath

from hra.adapters.interface import Tree
from hra.backbone.store import StoredBackbone
from hra.config import AdapterConfig
from hra.dims import SAMPLE_RATE
from hra.evaluate.groups import Grouping
from hra.peft import folder as peft_folder
from hra.serve.kinds import Kinds
from hra.serve.programs import Programs, Sizes, Spoken
from hra.submodels import Store, Submodel, create

REPEATS = 3
"""Of what takes seconds."""


class Made(NamedTuple):
  """The same rows in three forms."""

  folders: list[epath.Path]
  """As PEFT saves them."""
  store: epath.Path
  packed: epath.Path


class Spent(NamedTuple):
  """Seconds for `count` adapters."""

  seconds: float
  timed: int
  """Of them; what the others take is extrapolated."""
  first: float
  """Seconds of one, at the beginning and at the end."""
  last: float


def make(
  folder: epath.Path, stored: StoredBackbone, adapter: AdapterConfig, count: int
) -> Made:
  """Writes random rows of a LoRA as PEFT's folders, as a store and as a packed one."""
  made = Made([], folder / "store", folder / "packed")
  rows = list(serving_engine.speakers(stored, adapter, count))
  for each in tqdm.tqdm(rows, "writing adapters"):
    path = folder / "peft" / each.task.replace(" ", "-")
    made.folders.append(peft_folder.write(path, each, stored))
  create(made.store).publish_all(rows)
  packed = create(made.packed)
  packed.publish_all(rows)
  packed.pack()
  return made


def line(seconds: Sequence[float], count: int) -> Spent:
  """What `count` adapters take, by a straight line through the first ones' seconds.

  All that were timed count as they were.
  """
  timed = len(seconds)
  slope, start = np.polyfit(np.arange(timed), seconds, 1)
  rest = start + slope * np.arange(timed, count)
  return Spent(
    seconds=float(sum(seconds) + rest.sum()),
    timed=timed,
    first=float(seconds[0]),
    last=float(rest[-1]) if len(rest) else float(seconds[-1]),
  )


def whole(run: Callable[[], Any], count: int) -> Spent:
  """The median of a few times that all of them are registered."""
  walls = []
  for _ in range(REPEATS):
    begun = time.perf_counter()
    jax.block_until_ready(run())
    walls.append(time.perf_counter() - begun)
  wall = statistics.median(walls)
  return Spent(wall, count, wall / count, wall / count)


def ours(stored: StoredBackbone, made: Made) -> dict[str, Spent]:
  """Read from stores, from PEFT's folders; placed in a table that serves."""
  count = len(made.folders)
  found = {
    "ours, store opened and read": whole(lambda: read(made.store), count),
    "ours, packed store opened and read": whole(
      lambda: read(made.packed), count
    ),
    "ours, PEFT's folders read": whole(
      lambda: [peft_folder.read(path, stored) for path in made.folders], count
    ),
  }
  place = placing(stored, read(made.packed))
  found["ours, rows placed in a table"] = whole(place, count)
  return found


def read(folder: epath.Path) -> list[Submodel]:
  store = Store(folder)
  return [store[entry.task] for entry in store.entries()]


def placing(
  stored: StoredBackbone, rows: Sequence[Submodel]
) -> Callable[[], Tree]:
  """Writes rows into the slots of an engine's table, one by one."""
  sizes = Sizes(buckets=(SAMPLE_RATE // 2,), batches=(1,), slots=len(rows))
  kinds = Kinds(Grouping(stored))
  kind = kinds.of(rows[0])
  assert kind is not None
  programs = Programs(
    Spoken(stored, None, emits=True), [kind], sizes, tick=lambda: None
  )
  cast = [kind.cast(each.row) for each in rows]

  def run() -> Tree:
    table = programs.empty(kind)
    for slot, row in enumerate(cast, 1):
      table = programs.write(kind, table, row, slot)
    return table

  jax.block_until_ready(run())  # what the first write does once
  return run


def theirs(base: Any, made: Made, *, timed: int) -> dict[str, Spent]:
  """PEFT's `load_adapter` and `add_adapter`; tensors stacked by site.

  Args:
    base: the original model.
    timed: adapters that PEFT is given.
  """
  count = len(made.folders)
  return {
    "PEFT load_adapter": line(list(_loading(base, made, timed)), count),
    "PEFT add_adapter": line(list(_adding(base, made, timed)), count),
    "stacked torch, folders read": whole(lambda: stacked(made.folders), count),
  }


def _loading(base: Any, made: Made, timed: int) -> Iterator[float]:
  """Seconds of each, into one model."""
  import peft

  model = None
  for index, path in enumerate(tqdm.tqdm(made.folders[:timed], "load_adapter")):
    name, begun = f"speaker-{index}", time.perf_counter()
    if model is None:
      model = peft.PeftModel.from_pretrained(
        copy.deepcopy(base), str(path), adapter_name=name
      )
    else:
      model.load_adapter(str(path), adapter_name=name)
    yield time.perf_counter() - begun


def _adding(base: Any, made: Made, timed: int) -> Iterator[float]:
  """Seconds of each fresh one, in one model."""
  import peft

  config = peft.LoraConfig.from_pretrained(str(made.folders[0]))
  config.inference_mode = False
  model = peft.get_peft_model(
    copy.deepcopy(base), config, adapter_name="speaker-0"
  )
  for index in tqdm.trange(1, timed + 1, desc="add_adapter"):
    begun = time.perf_counter()
    model.add_adapter(f"speaker-{index}", config)
    yield time.perf_counter() - begun


def stacked(folders: Sequence[epath.Path]) -> dict[str, Any]:
  """Tensors [N, ...] by their names: what a layout of our kind needs in torch."""
  import safetensors.torch
  import torch

  read = [
    safetensors.torch.load_file(path / peft_folder.WEIGHTS_FILE)
    for path in folders
  ]
  return {name: torch.stack([each[name] for each in read]) for name in read[0]}
