"""A training step for all speakers: PEFT one by one, stacked torch, ours.

    python benchmarks/adapting.py

A Conformer CTC of transformers with random weights, converted; LoRA folders of PEFT
that all read. Everybody starts at the same waveforms, computes its own log-mel, the CTC
loss by speaker, the gradient by the LoRA alone and AdamW; no SpecAugment, no clipping.
Before anything is timed, losses and gradients of all have to agree, and joint steps
with steps alone (`adapting_parity`). The contestants take turns in one process, on the
same threads; memory is that of a process each. Other adapters, full fine-tuning and the
plain forward stand in benchmarks/steps.py. Then: how long many adapters take to
register (`adapting_registration`).

Writes docs/adapting.json and docs/adapting.md.
"""

import functools
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import adapting_ours as ours
import adapting_page
import jax
import results
import serving_engine
import tqdm
from absl import app, flags, logging
from adapting_ours import Shape
from timing import Run, take_turns

from hra.backbone import store
from hra.backbone.store import StoredBackbone
from hra.commands import process
from hra.config import AdapterConfig
from hra.data.batching import Batch
from hra.peft import folder as peft_folder


def define_flags() -> None:
  """Only of the program: tests and the memory's processes import this module."""
  results.define_out()
  flags.DEFINE_list("speakers", ["8", "16"], "Of a batch.")
  flags.DEFINE_list("recordings", ["1"], "Of each speaker.")
  flags.DEFINE_list("seconds", ["2", "4"], "Of each recording.")
  flags.DEFINE_integer("width", 144, "Of the Conformer.")
  flags.DEFINE_integer("layers", 16, "Of the Conformer.")
  flags.DEFINE_integer("rank", 8, "Of LoRA.", lower_bound=1)
  flags.DEFINE_integer("blocks", 5, "Of each contestant.", lower_bound=1)
  flags.DEFINE_integer("steps", 1, "Of a block.", lower_bound=1)
  flags.DEFINE_integer("adapters", 1000, "That are registered.", lower_bound=3)
  flags.DEFINE_integer(
    "timed", 100, "Of them, those that PEFT is given.", lower_bound=2
  )
  for name, kind in (
    ("speakers", int),
    ("recordings", int),
    ("seconds", float),
  ):
    flags.register_validator(
      name,
      functools.partial(_are_positive, kind),
      message="numbers above 0 with commas between",
    )


def _are_positive(kind: Callable[[str], float], given: Sequence[str]) -> bool:
  try:
    return bool(given) and all(kind(each) > 0 for each in given)
  except ValueError:
    return False


class Built(NamedTuple):
  """A contestant at its start."""

  run: Run
  """A step of all speakers."""
  compared: Any
  """What the gate asks."""
  first_seconds: float
  """To build it; what is compiled is compiled anew."""
  temporaries: int | None
  """Bytes that the compiled step allocates; unknown of torch."""


def main(argv: Sequence[str]) -> None:
  del argv
  given = flags.FLAGS
  logging.set_verbosity(logging.FATAL)
  set_up()
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    stored = _made(folder)
    shapes = _shapes()
    cells = [_cell(folder, stored, shape) for shape in shapes]
    memory = _memory(folder, shapes[-1])
    registered = _registered(folder, stored)
  about = results.about("adapting") | {"setting": _setting(stored)}
  found = {
    "cells": cells,
    "memory": {"shape": shapes[-1]._asdict(), "contestants": memory},
    "registration": registered,
  }
  results.write(
    "adapting",
    figures={**about, **found},
    markdown=adapting_page.page(about, found),
    out=given.out,
  )


def set_up() -> None:
  """Everything is compiled anew: what a cache holds would be found in no time."""
  process.set_up()
  jax.config.update("jax_enable_compilation_cache", False)


def wait(done: Any) -> None:
  jax.block_until_ready(done)


def _shapes() -> list[Shape]:
  given = flags.FLAGS
  return [
    Shape(int(speakers), int(recordings), float(seconds))
    for speakers, recordings, seconds in itertools.product(
      given.speakers, given.recordings, given.seconds
    )
  ]


def _made(folder: pathlib.Path) -> StoredBackbone:
  """The original, the backbone that it is here, and a LoRA folder for each speaker."""
  import adapting_torch

  from hra.backbone.foreign.convert import convert

  given = flags.FLAGS
  source = adapting_torch.make(
    folder / "original", width=given.width, layers=given.layers
  )
  convert(str(source), folder / "backbone")
  stored = store.load(folder / "backbone")
  adapter = AdapterConfig(family="lora", width=given.rank)
  most = max(int(each) for each in given.speakers)
  for index, each in enumerate(serving_engine.speakers(stored, adapter, most)):
    peft_folder.write(folder / "lora" / f"{index:04d}", each, stored)
  return stored


def _folders(folder: pathlib.Path, shape: Shape) -> list[pathlib.Path]:
  return sorted((folder / "lora").iterdir())[: shape.speakers]


def built(folder: pathlib.Path, shape: Shape, name: str) -> Built:
  """The contestant of a name, from what `_made` left."""
  begun = time.perf_counter()
  folders = _folders(folder, shape)
  if name in ours.NAMES:
    stored = store.load(folder / "backbone")
    heard = ours.batch(shape, labels=stored.config.vocabulary)
    together = shape.speakers if name == ours.JOINT else 1
    made = ours.contestant(stored, folders, shape, together=together)
    spent = time.perf_counter() - begun
    return Built(ours.running(made, heard), made, spent, made.temporaries)
  import adapting_torch

  original = adapting_torch.load(folder / "original")
  batch = ours.batch(shape, labels=original.model.config.vocab_size)
  contestant = adapting_torch.CONTESTANTS[name](
    original,
    folders,
    adapting_torch.spoken(batch.wave_KBS, batch.labels_KBU),
    rate=ours.RATE,
  )
  spent = time.perf_counter() - begun
  return Built(contestant.run, contestant, spent, None)


def _exact(folder: pathlib.Path, shape: Shape, batch: Batch) -> Any:
  import adapting_torch

  heard = adapting_torch.spoken(batch.wave_KBS, batch.labels_KBU)
  original = adapting_torch.load(folder / "original")
  return adapting_torch.exact(original, _folders(folder, shape), heard)


def _cell(
  folder: pathlib.Path, stored: StoredBackbone, shape: Shape
) -> dict[str, Any]:
  """One shape: the gate, then the contestants in turns."""
  import adapting_parity as parity
  import adapting_torch

  adapting_torch.use_threads(len(os.sched_getaffinity(0)))
  names = [*adapting_torch.CONTESTANTS, *ours.NAMES]
  made = {
    name: built(folder, shape, name)
    for name in tqdm.tqdm(names, f"{shape}: compiling")
  }
  joint, alone = (made[name].compared for name in ours.NAMES)
  gate = {
    "gradients": parity.all_agree(
      {name: made[name].compared for name in adapting_torch.CONTESTANTS},
      _exact(folder, shape, joint.batch),
      stored,
      _folders(folder, shape),
      joint.batch,
    ),
    "joint steps": parity.joint_is_alone(ours.Contestants(joint, alone)),
  }
  given = flags.FLAGS
  times = take_turns(
    {name: each.run for name, each in made.items()},
    blocks=given.blocks,
    steps=given.steps,
  )
  return {
    "shape": shape._asdict(),
    "gate": gate,
    "contestants": {
      name: {
        "walls": times[name].walls,
        "cpus": times[name].cpus,
        "first_seconds": made[name].first_seconds,
        "temporaries": made[name].temporaries,
      }
      for name in names
    },
  }


def _memory(folder: pathlib.Path, shape: Shape) -> dict[str, dict[str, int]]:
  """Resident bytes of each contestant, in a process of its own."""
  import adapting_torch

  names = [*adapting_torch.CONTESTANTS, *ours.NAMES]
  script = pathlib.Path(__file__).with_name("adapting_memory.py")
  found = {}
  for name in tqdm.tqdm(names, "memory"):
    done = subprocess.run(
      [
        *(sys.executable, str(script), f"--contestant={name}"),
        f"--folder={folder}",
        *(f"--{field}={value}" for field, value in shape._asdict().items()),
      ],
      stdout=subprocess.PIPE,
      check=True,
    )
    found[name] = json.loads(done.stdout.splitlines()[-1])
  return found


def _registered(
  folder: pathlib.Path, stored: StoredBackbone
) -> dict[str, dict[str, Any]]:
  import adapting_registration as registration
  import adapting_torch

  given = flags.FLAGS
  adapter = AdapterConfig(family="lora", width=given.rank)
  made = registration.make(
    folder / "registered", stored, adapter, given.adapters
  )
  base = adapting_torch.load(folder / "original").model
  found = registration.theirs(
    base, made, timed=min(given.timed, given.adapters)
  )
  found |= registration.ours(stored, made)
  return {name: spent._asdict() for name, spent in found.items()}


def _setting(stored: StoredBackbone) -> str:
  config, given = stored.config, flags.FLAGS
  count = sum(leaf.size for leaf in jax.tree.leaves(stored.module))
  return (
    f"a Conformer CTC of {config.layers} layers of width {config.width} "
    f"({count / 1e6:.1f}M parameters, transformers' LASR), float32, LoRA of rank "
    f"{given.rank} on attention and feed-forward projections; medians of "
    f"{given.blocks} blocks, {len(os.sched_getaffinity(0))} threads for either"
  )


if __name__ == "__main__":
  define_flags()
  app.run(main)
