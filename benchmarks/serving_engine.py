"""The engine: how fast a Submodel comes to the device, and what mixing speakers costs.

    python benchmarks/serving_engine.py

A random backbone of width 512, four Conformer layers. Loads are from a local store
whose files are in the page cache, each Submodel having been thrown out before: `idle`,
and while clients keep the device busy. A batch of 32 different speakers is compared
with one of the bare backbone, block by block in turns. Writes docs/serving_engine.json
and docs/serving_engine.md.
"""

import functools
import pathlib
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import results
from absl import app, flags, logging
from timing import median_ratio, take_turns

from hra.adapters import families
from hra.backbone.network import Backbone
from hra.backbone.store import BUNDLED, StoredBackbone, load
from hra.commands import process
from hra.config import (
  AdapterConfig,
  BackboneConfig,
  ChunksConfig,
  EngineConfig,
)
from hra.dims import SAMPLE_RATE
from hra.evaluate.groups import Grouping
from hra.serve.engine import Engine
from hra.serve.interface import Request
from hra.serve.kinds import Kinds
from hra.serve.programs import Programs, Sizes, Spoken
from hra.submodels import Store, Submodel, create, shared_fingerprint

BACKBONE = BackboneConfig(
  width=512, layers=4, heads=8, feed_forward=2048, kernel=15, vocabulary=28
)
ADAPTERS = {
  "HRA, linear head": AdapterConfig(width=128),
  "residual, 64": AdapterConfig(family="residual", width=64),
  "residual, 512": AdapterConfig(family="residual", width=512),
}
SPEAKERS, SECONDS = 32, 2.0
CLIENTS = 4
"""That keep the device busy."""


def define_flags() -> None:
  """Only of the program: tests import this module too."""
  results.define_out()
  flags.DEFINE_integer("loads", 300, "Of each adapter, idle and busy.")
  flags.DEFINE_integer("blocks", 9, "Of batches, of each case.")


def backbone() -> StoredBackbone:
  """Random numbers, with the bundled backbone's tokenizer and front end."""
  bundled = load(BUNDLED["tiny"])
  module = jax.jit(
    lambda key: Backbone(BACKBONE, mels=bundled.frontend.num_mels, key=key)
  )(jax.random.key(0))
  return StoredBackbone(
    module, BACKBONE, bundled.frontend, bundled.tokenizer, "random", {}
  )


def speakers(
  stored: StoredBackbone, config: AdapterConfig, count: int
) -> Iterator[Submodel]:
  adapter = families.build(config, stored.config)
  shared = jax.device_get(adapter.init_shared(jax.random.key(1)))
  shapes = jax.eval_shape(adapter.init_task, jax.random.key(0))
  for number in range(count):
    rng = np.random.default_rng(number)
    yield Submodel(
      task=f"speaker {number}",
      adapter=config,
      row=jax.tree.map(
        lambda leaf, rng=rng: rng.normal(0, 0.01, leaf.shape).astype(
          leaf.dtype
        ),
        shapes,
      ),
      shared=shared,
      backbone_fingerprint=stored.fingerprint,
      shared_fingerprint=shared_fingerprint(shared),
      summary={},
      tokenizer=stored.tokenizer.hash,
    )


def loads(
  stored: StoredBackbone, config: AdapterConfig, *, count: int
) -> dict[str, Any]:
  """Seconds of each load, idle and busy."""
  with tempfile.TemporaryDirectory() as folder:
    store = create(pathlib.Path(folder))
    store.publish_all(speakers(stored, config, SPEAKERS))
    sizes = [entry.bytes for entry in store.entries()]
    settings = EngineConfig(
      slots=16, batch_sizes=(1,), bucket_seconds=(SECONDS,)
    )
    chunks = ChunksConfig(seconds=0)
    with Engine(stored, Store(folder), settings, chunks=chunks) as engine:
      assert engine.wait_until_ready()
      compiled = engine.figures()["compilations_total"]
      _loaded(engine, SPEAKERS)  # the page cache is warm
      found: dict[str, Any] = {"idle": _loaded(engine, count)}
      stop = threading.Event()
      clients = [
        threading.Thread(target=_busy, args=(engine, stop))
        for _ in range(CLIENTS)
      ]
      for client in clients:
        client.start()
      found["busy"] = _loaded(engine, count)
      stop.set()
      for client in clients:
        client.join()
      now = engine.figures()["compilations_total"]
  return {
    **{name: _percentiles(each) for name, each in found.items()},
    "bytes": sizes[0],
    "mb_per_second": sizes[0] / np.median(found["idle"]) / 1e6,
    "compilations": now - compiled,
  }


def _loaded(engine: Engine, count: int) -> list[float]:
  spent = []
  for number in range(count):
    task = f"speaker {number % SPEAKERS}"
    engine.unload(task)
    begun = time.perf_counter()
    engine.load(task).result()
    spent.append(time.perf_counter() - begun)
  return spent


def _busy(engine: Engine, stop: threading.Event) -> None:
  wave_S = np.zeros(int(SECONDS * SAMPLE_RATE), np.float32)
  while not stop.is_set():
    engine.submit(Request(wave_S, None)).result()


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
  return {
    f"p{part}_ms": 1e3 * float(np.percentile(seconds, part))
    for part in (50, 99)
  }


def batches(stored: StoredBackbone, *, blocks: int) -> dict[str, Any]:
  """A batch of so many speakers beside one of nobody in particular."""
  samples = int(SECONDS * SAMPLE_RATE)
  sizes = Sizes(buckets=(samples,), batches=(SPEAKERS,), slots=SPEAKERS)
  own = list(speakers(stored, ADAPTERS["HRA, linear head"], SPEAKERS))
  kinds = Kinds(Grouping(stored))
  kind = kinds.of(own[0])
  assert kind is not None
  spoken = Spoken(stored, None, emits=True)
  mixed = Programs(spoken, [kind], sizes, tick=lambda: None)
  bare = Programs(spoken, [], sizes, tick=lambda: None)
  table = mixed.empty(kind)
  for slot, each in enumerate(own, 1):
    table = mixed.write(kind, table, kind.cast(each.row), slot)
  rng = np.random.default_rng(0)
  wave_BS = rng.normal(0, 0.1, (SPEAKERS, samples)).astype(np.float32)
  lengths_B = np.full(SPEAKERS, samples, np.int32)
  slot_GB = np.arange(1, SPEAKERS + 1, dtype=np.int32)[None]
  runs = {
    "bare": functools.partial(bare.run, [], slot_GB[:0], wave_BS, lengths_B),
    "mixed": functools.partial(mixed.run, [table], slot_GB, wave_BS, lengths_B),
  }
  times = take_turns(runs, blocks=blocks, steps=1)
  return {
    "bare_seconds": times["bare"].wall,
    "mixed_seconds": times["mixed"].wall,
    "wall_ratio": median_ratio(times["mixed"].walls, times["bare"].walls),
    "cpu_ratio": median_ratio(times["mixed"].cpus, times["bare"].cpus),
  }


def page(about: dict[str, str], found: dict[str, Any]) -> str:
  note = (
    f"width {BACKBONE.width}, {BACKBONE.layers} layers; {SPEAKERS} speakers in 16 "
    f"slots, recordings of {SECONDS:g} s, {CLIENTS} clients where it is busy"
  )
  lines = [
    "# The engine that serves",
    "",
    results.title(about, note=note),
    "",
    "A Submodel from the store to its slot, read and checked anew:",
    "",
    "| | KB | p50 ms | p99 ms | MB/s | p50 ms, busy | p99 ms, busy | compilations |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for name, row in found["loads"].items():
    idle, busy = row["idle"], row["busy"]
    lines.append(
      f"| {name} | {row['bytes'] / 1e3:,.0f} | {idle['p50_ms']:.1f} "
      f"| {idle['p99_ms']:.1f} | {row['mb_per_second']:.0f} "
      f"| {busy['p50_ms']:.0f} | {busy['p99_ms']:.0f} "
      f"| {row['compilations']:.0f} |"
    )
  batch = found["batch"]
  lines += [
    "",
    f"A batch of {SPEAKERS} speakers' HRA heads: {batch['mixed_seconds']:.2f} s, of the "
    f"bare backbone {batch['bare_seconds']:.2f} s; {batch['wall_ratio']:.3f} of its "
    f"time, {batch['cpu_ratio']:.3f} of its CPU time (medians of neighbouring blocks).",
    "",
  ]
  return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.FATAL)
  process.set_up()
  stored = backbone()
  found = {
    "batch": batches(stored, blocks=flags.FLAGS.blocks),
    "loads": {
      name: loads(stored, config, count=flags.FLAGS.loads)
      for name, config in ADAPTERS.items()
    },
  }
  about = results.about("serving_engine")
  results.write(
    "serving_engine",
    figures={**about, **found},
    markdown=page(about, found),
    out=flags.FLAGS.out,
  )


if __name__ == "__main__":
  define_flags()
  app.run(main)
