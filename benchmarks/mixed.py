"""Batches that mix speakers: PEFT, stacked torch and ours, over each one's own base.

    python benchmarks/mixed.py

Encoders of random weights, converted: Whisper tiny's, and a Conformer CTC of about 10M
parameters. LoRA (rank 8, queries and values) of each speaker, which PEFT and we read
from the same folders. Features in, frames or logits out; recordings of equal length,
each of another speaker as long as there are some.

- *PEFT mixed* names the adapter of each recording, *PEFT loop* sets one after the other.
- *stacked torch* gathers rows of a table for two batched products; *gather* is what we
  do; *one-hot* finds rows by a product (arXiv 2203.12559); *ragged* sorts frames by
  speaker and multiplies groups with the whole table, whose rows XLA's CPU backend goes
  through one by one, so that only the smallest table is tried.

Before a cell is timed, all outputs have to agree with PEFT's. The contestants take
turns in one process, on the same threads. PEFT has no table; it holds the speakers of
the batch. Writes docs/mixed.json, docs/mixed.md and docs/mixed.png.
"""

import dataclasses
import functools
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import adapting_torch
import jax
import mixed_ours
import mixed_page
import mixed_torch
import numpy as np
import results
import serving_engine
import tqdm
from absl import app, flags, logging
from etils import epath
from timing import Times, take_turns

from hra.adapters.interface import Tree
from hra.backbone import store
from hra.backbone.foreign.convert import convert
from hra.backbone.store import StoredBackbone
from hra.commands import process
from hra.config import AdapterConfig
from hra.errors import InputError
from hra.peft import folder as peft_folder

APART = 1e-5
"""Of the outputs' deviation, by which contestants may differ."""
ADAPTER = AdapterConfig(
  family="lora", width=8, sites=("attention.query", "attention.value")
)
FEWEST = 16
"""Recordings of a batch."""
LONGEST = 10
"""Seconds."""
BLOCK = 0.3
"""Seconds of the bare backbone in a block, at least a batch."""


def define_flags() -> None:
  """Only of the program: tests import this module too."""
  results.define_out()
  flags.DEFINE_list("models", ["whisper", "conformer"], "Which encoders.")
  flags.DEFINE_list("seconds", ["0.32", "2", "10"], "Of a recording.")
  flags.DEFINE_list("speakers", ["1", "16", "64"], "Of a batch.")
  flags.DEFINE_list("tables", ["16", "256", "1024"], "Rows.")
  flags.DEFINE_float(
    "most_seconds",
    200,
    "Of all recordings of a batch; larger cells are left out.",
  )
  flags.DEFINE_integer("blocks", 5, "Blocks of each case.")


class Cell(NamedTuple):
  """One batch."""

  model: str
  seconds: float
  speakers: int

  @property
  def speaker_B(self) -> np.ndarray:
    return np.arange(max(self.speakers, FEWEST)) % self.speakers


class Made(NamedTuple):
  """An original, what it is here, and LoRA folders of speakers."""

  folder: pathlib.Path
  stored: StoredBackbone
  folders: list[pathlib.Path]
  rows: list[Tree]


def main(argv: Sequence[str]) -> None:
  del argv
  given = flags.FLAGS
  logging.set_verbosity(logging.FATAL)
  process.set_up()
  adapting_torch.use_threads(len(os.sched_getaffinity(0)))
  speakers = [int(each) for each in given.speakers]
  found = []
  with tempfile.TemporaryDirectory() as temporary:
    for model in given.models:
      made = make(pathlib.Path(temporary) / model, model, count=max(speakers))
      for seconds in map(float, given.seconds):
        for count in speakers:
          cell = Cell(model, seconds, count)
          if len(cell.speaker_B) * seconds <= given.most_seconds:
            found.append(_measured(made, cell))
  about = results.about("mixed") | {
    "threads": len(os.sched_getaffinity(0)),
    "blocks": given.blocks,
    "most_seconds": given.most_seconds,
  }
  results.write(
    "mixed",
    figures={**about, "cells": found},
    markdown=mixed_page.page(about, found),
    out=given.out,
  )
  mixed_page.plot(found, epath.Path(given.out) / "mixed.png")


def make(
  folder: pathlib.Path, model: str, *, count: int, **changes: int
) -> Made:
  """Writes an original and `count` speakers, and converts it."""
  writes = {
    "whisper": functools.partial(mixed_torch.make_whisper, seconds=LONGEST),
    "conformer": adapting_torch.make,
  }
  source = writes[model](folder / "original", **changes)
  convert(str(source), folder / "backbone")
  stored = store.load(folder / "backbone")
  folders, rows = [], []
  for index, each in enumerate(serving_engine.speakers(stored, ADAPTER, count)):
    # Loud enough to be heard: 0.1 a number.
    loud = jax.tree.map(lambda leaf: 10 * leaf, each.row)
    path = folder / "lora" / f"{index:04d}"
    peft_folder.write(path, dataclasses.replace(each, row=loud), stored)
    folders.append(path)
    rows.append(loud)
  return Made(folder, stored, folders, rows)


def contestants(
  made: Made, cell: Cell, tables: Sequence[int]
) -> dict[str, Callable[[], Any]]:
  """Forward passes of a cell's batch by name, compiled; bases first."""
  rng = np.random.default_rng(0)
  speaker_B = cell.speaker_B
  frames = round(100 * cell.seconds)
  size = (len(speaker_B), frames, made.stored.frontend.num_mels)
  mel_BTF = rng.standard_normal(size, np.float32)
  rows = made.rows[: cell.speakers]
  torch_side = mixed_torch.Contestants(
    mixed_torch.load(made.folder / "original", frames=frames),
    made.folders[: cell.speakers],
    mel_BTF,
    speaker_B,
  )
  our_side = mixed_ours.Contestants(made.stored, ADAPTER, mel_BTF)
  found: dict[str, Callable[[], Any]] = {
    "torch": torch_side.base,
    "ours": our_side.base(),
    "PEFT mixed": torch_side.mixed,
    "PEFT loop": torch_side.loop,
  }
  sizes = [each for each in tables if each >= cell.speakers]
  for size_N in sizes:
    place_K = rng.permutation(size_N)[: cell.speakers]
    row_B, rows_N = place_K[speaker_B], mixed_ours.tables(rows, place_K, size_N)
    found |= {
      f"stacked torch, {size_N}": torch_side.stacked(size_N, row_B),
      f"gather, {size_N}": our_side.gather(rows_N, row_B),
      f"one-hot, {size_N}": our_side.one_hot(rows_N, row_B),
    }
    if size_N == min(tables):
      found[f"ragged, {size_N}"] = our_side.ragged(rows_N, row_B)
  return found


def check_parity(outputs: Mapping[str, Any], *, where: str) -> dict[str, float]:
  """How far outputs are from PEFT's, by their deviation; bases from each other.

  Raises:
    InputError: farther than `APART`, or as if there were no LoRA.
  """
  read = {name: np.asarray(each) for name, each in outputs.items()}
  found = {}
  for name, each in read.items():
    like = read["torch" if name in ("torch", "ours") else "PEFT mixed"]
    found[name] = float(np.abs(each - like).max() / like.std())
    if not found[name] <= APART:  # NaN neither
      raise InputError(
        f"{where}: {name}",
        expected=f"outputs within {APART:g} of their deviation",
        got=f"{found[name]:.2g}: nothing is timed",
      )
  moved = np.abs(read["PEFT mixed"] - read["torch"]).max(axis=(1, 2))
  if not moved.min() > 0.01 * read["torch"].std():
    raise InputError(
      where, expected="LoRAs that are heard", got=f"{moved.min():.2g}"
    )
  return found


def _measured(made: Made, cell: Cell) -> dict[str, Any]:
  where = f"{cell.model}, {cell.seconds:g} s, {cell.speakers} speakers"
  tqdm.tqdm.write(f"{where}: compiling")
  runs = contestants(made, cell, [int(each) for each in flags.FLAGS.tables])
  gate = check_parity({name: run() for name, run in runs.items()}, where=where)
  times = take_turns(
    runs, blocks=flags.FLAGS.blocks, steps=_steps(runs["torch"])
  )
  return {**cell._asdict(), "recordings": len(cell.speaker_B)} | {
    "cases": {
      name: _told(each) | {"apart": gate[name]} for name, each in times.items()
    }
  }


def _steps(run: Callable[[], Any]) -> int:
  """Of a block, that it isn't over in a moment."""
  began = time.perf_counter()
  run()
  return max(1, round(BLOCK / (time.perf_counter() - began)))


def _told(times: Times) -> dict[str, Any]:
  return {"walls": times.walls, "cpus": times.cpus}


if __name__ == "__main__":
  define_flags()
  app.run(main)
