"""What a step costs: every adapter beside the plain forward and full fine-tuning.

    python benchmarks/steps.py
    python benchmarks/steps.py --name=steps_512 --width=512 --layers=8 --heads=8 \
        --tasks=32 --seconds=2 --submodels=1,8,32 --families=hra,residual --blocks=15
    python benchmarks/steps.py --out=docs/h100 --name=steps_1b --width=1280 \
        --layers=32 --heads=20 --seconds=30 --tasks=32 --dtype=bfloat16 --remat=full

    python benchmarks/steps.py --name=steps_whisper --encoder=whisper --width=1280 \
        --layers=32 --heads=20 --seconds=30 --tasks=32 --dtype=bfloat16 --remat=full \
        --families=hra --device=gpu

A Conformer of random weights, or an encoder of Whisper's shape with a CTC head, a batch
of as many speakers as recordings, noise. The cases take turns in one process; wall and
CPU seconds are medians of blocks.

- *forward*: waveforms to labels by the bare backbone, and with so many different
  Submodels of a table mixed in the batch (`--submodels`).
- *MFU*: FLOPs of the model, nothing computed again, at a known chip's bfloat16 peak.
- *step*: all that training does to a batch, by adapter. `one_by_one` is the step of a
  single speaker's single recording: as often as there are speakers, what the job
  would cost one speaker after the other.

Writes docs/NAME.json and docs/NAME.md.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any

import devices
import jax
import jax.numpy as jnp
import results
import tqdm
import training
from absl import app, flags, logging
from timing import Run, median_ratio, take_turns

from hra import hardware
from hra.adapters import families, table
from hra.adapters.interface import Frozen
from hra.adapters.lookup import Lookup
from hra.backbone.foreign import published
from hra.commands import process
from hra.config import (
  AdapterConfig,
  BackboneConfig,
  Config,
  DecoderConfig,
  TrainConfig,
)
from hra.evaluate.transcribe import greedy
from hra.model import Model

_OUT = results.define_out()
devices.define_device()
_NAME = flags.DEFINE_string("name", "steps", "Of the files that are written.")
_ENCODER = flags.DEFINE_enum(
  "encoder", "conformer", ["conformer", "whisper"], "Whisper's hears 30 s."
)
_WIDTH = flags.DEFINE_integer("width", 144, "Of the encoder.")
_LAYERS = flags.DEFINE_integer("layers", 16, "Of the encoder.")
_HEADS = flags.DEFINE_integer("heads", 4, "Of its attention.")
_KERNEL = flags.DEFINE_integer("kernel", 31, "Taps of its convolution.")
_DTYPE = flags.DEFINE_enum(
  "dtype", "float32", ["float32", "bfloat16"], "Of computation and weights."
)
_REMAT = flags.DEFINE_enum("remat", "none", ["none", "dots", "full"], "")
_SECONDS = flags.DEFINE_float("seconds", 4.0, "Of a recording.")
_TASKS = flags.DEFINE_integer("tasks", 8, "Speakers, and recordings, a batch.")
_FAMILIES = flags.DEFINE_list(
  "families", ["hra", "residual", "lora", "bitfit"], "Of adapters; hra is one."
)
flags.register_validator("families", lambda given: "hra" in given)
devices.define_counts("submodels", [1, 8], "Mixed in a batch.")
_BLOCKS = flags.DEFINE_integer("blocks", 7, "Blocks of each case.")
_STEPS = flags.DEFINE_integer("steps", 2, "Steps of a block.")

_WHISPER = "openai/whisper-large-v3"
BARE, FULL, ALONE = "backbone", "full, pooled", "hra, one_by_one"


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.FATAL)
  devices.choose()
  process.set_up()
  backbone = _random(_backbone())
  cases: dict[str, Run] = {}
  said: dict[str, dict[str, Any]] = {}
  steps = {
    name: (adapter, TrainConfig(), _TASKS.value)
    for name, adapter in _adapters().items()
  }
  steps[ALONE] = (_adapters()["hra"], TrainConfig(), 1)
  pooled = TrainConfig(mode="pretrain", start="backbone")
  steps[FULL] = (AdapterConfig(family="none"), pooled, _TASKS.value)
  for name, (adapter, train, tasks) in tqdm.tqdm(steps.items(), "compiling"):
    began = time.perf_counter()
    made = _make(backbone, adapter, train, tasks=tasks)
    cases[name] = training.advancing(made)
    said[name] = {
      "kind": "step",
      "compile_seconds": time.perf_counter() - began,
      "temporary_mebibytes": made.temporaries / 2**20,
      "model_flops": made.model_flops(),
    }
    batch = made.batch
  wave_BS = batch.wave_KBS.reshape(-1, batch.wave_KBS.shape[-1])
  for name, run in _forwards(backbone, wave_BS).items():
    cases[name], said[name] = run, {"kind": "forward"}
  found = take_turns(cases, blocks=_BLOCKS.value, steps=_STEPS.value)
  for name, times in found.items():
    said[name] |= {
      "wall_seconds": times.wall,
      "wall_range": [min(times.walls), max(times.walls)],
      "cpu_seconds": times.cpu,
      "by_forward": median_ratio(times.walls, found[BARE].walls),
      "by_full": median_ratio(times.walls, found[FULL].walls),
    }
    said[name] |= _utilisation(said[name])
  about = results.about("steps") | {"setting": _setting(backbone)}
  given = [each for each in sys.argv[1:] if not each.startswith("--out")]
  about["command"] = " ".join([about["command"], *given])
  results.write(
    _NAME.value,
    figures={**about, "cases": said},
    markdown=_markdown(about, said),
    out=_OUT.value,
  )


def _random(config: BackboneConfig) -> training.Adaptee:
  if _ENCODER.value == "conformer":
    return training.random_backbone(config)
  _, frontend = published.outline(_WHISPER)
  return training.random_backbone(config, frontend=frontend)


def _backbone() -> BackboneConfig:
  shape = BackboneConfig()
  if _ENCODER.value == "whisper":
    published_as, _ = published.outline(_WHISPER)
    shape = dataclasses.replace(published_as, decoder=DecoderConfig())
  return dataclasses.replace(
    shape,
    width=_WIDTH.value,
    layers=_LAYERS.value,
    heads=_HEADS.value,
    feed_forward=4 * _WIDTH.value,
    kernel=_KERNEL.value,
    vocabulary=1024,
    dtype=_DTYPE.value,
    param_dtype=_DTYPE.value,
    remat=_REMAT.value,
  )


def _adapters() -> dict[str, AdapterConfig]:
  sizes = {"hra": _WIDTH.value // 4, "residual": 64, "lora": 8, "bitfit": 128}
  return {
    family: AdapterConfig(family=family, width=sizes[family])
    for family in _FAMILIES.value
  }


def _make(
  backbone: training.Adaptee,
  adapter: AdapterConfig,
  train: TrainConfig,
  *,
  tasks: int,
) -> training.Training:
  """Of `tasks` speakers with a recording each, or of one pool of all of them."""
  pool = train.mode == "pretrain"
  if pool:
    # Weights that train are kept in float32, as everywhere.
    config = dataclasses.replace(_backbone(), param_dtype="float32")
    backbone = _random(config)
  config = Config(adapter=adapter, train=train)
  config.data.tasks_per_batch = 1 if pool else tasks
  config.data.utterances_per_task = tasks if pool else 1
  return training.make(
    config,
    tasks=1 if pool else tasks,
    seconds=_SECONDS.value,
    backbone=backbone,
    dense=False,
  )


def _forwards(backbone: training.Adaptee, wave_BS: jax.Array) -> dict[str, Run]:
  """The bare backbone, and mixed Submodels of every family."""
  wave_BS = jnp.asarray(wave_BS)
  lengths_B = jnp.full(len(wave_BS), wave_BS.shape[1], jnp.int32)
  module, frontend = backbone
  mels = frontend.num_mels * frontend.stack
  names = [f"task-{index}" for index in range(len(wave_BS))]
  counts = [int(each) for each in flags.FLAGS.submodels]

  def mixed(config: AdapterConfig, task_B: jax.Array) -> Run:
    family = families.build(config, module.config, mels=mels)
    model = Model(adapter=Lookup(family=family), frontend=frontend)
    rows_N = table.init_rows(family.init_task, names, jax.random.key(1))
    shared = Lookup.shared(family.init_shared(jax.random.key(0)), rows_N)
    given = shared, Lookup.row(task_B), None, wave_BS, lengths_B
    return lambda: greedy(model, module, *given)

  bare = Model(adapter=Frozen(), frontend=frontend)
  found: dict[str, Run] = {
    BARE: lambda: greedy(bare, module, {}, {}, None, wave_BS, lengths_B)
  }
  for name, config in _adapters().items():
    for count in counts:
      some = f"{count} Submodel{'s'[: count > 1]}"
      found[f"{name}, {some}"] = mixed(config, jnp.arange(len(wave_BS)) % count)
  return found


def _utilisation(row: dict[str, Any]) -> dict[str, float]:
  """The share of a known chip's peak that the model's own FLOPs are of."""
  chip = hardware.of_kind(jax.devices()[0].device_kind)
  if chip is None or "model_flops" not in row:
    return {}
  rate = row["model_flops"] / row["wall_seconds"]
  return {"mfu": rate / chip.bf16_flops_per_s}


def _setting(backbone: training.Adaptee) -> str:
  config = backbone.module.config
  count = sum(leaf.size for leaf in jax.tree.leaves(backbone.module))
  return (
    f"{_ENCODER.value.title()} of {config.layers} layers of width {config.width} "
    f"({count / 1e6:.0f}M parameters), {config.param_dtype}, rematerialisation "
    f"`{config.remat}`; {_TASKS.value} recordings of {_SECONDS.value:g} s, each of "
    "another speaker"
  )


def _markdown(about: dict[str, Any], said: dict[str, dict[str, Any]]) -> str:
  note = (
    f"medians of {_BLOCKS.value} blocks of {_STEPS.value} steps. "
    f"{about['setting']}."
  )
  lines = [
    results.title(about, note=note),
    "",
    "Ratios are medians of neighbouring blocks'.",
    "",
    "| forward | wall, s | / backbone |",
    "|---|---|---|",
  ]
  lines += [
    f"| {name} | {row['wall_seconds']:.4f} | {row['by_forward']:.3f} |"
    for name, row in said.items()
    if row["kind"] == "forward"
  ]
  lines += [
    "",
    "| step | wall, s | CPU, s | / forward | / full | temporaries, MiB | "
    "GFLOP | MFU | first, s |",
    "|---|---|---|---|---|---|---|---|---|",
  ]
  lines += [
    f"| {name} | {row['wall_seconds']:.4f} | {row['cpu_seconds']:.4f} | "
    f"{row['by_forward']:.2f} | {row['by_full']:.2f} | "
    f"{row['temporary_mebibytes']:.0f} | {row['model_flops'] / 1e9:.1f} | "
    f"{_percent(row)} | {row['compile_seconds']:.1f} |"
    for name, row in said.items()
    if row["kind"] == "step"
  ]
  serial = said[ALONE]["wall_seconds"] * _TASKS.value
  joint = said["hra"]["wall_seconds"]
  lines += [
    "",
    f"{_TASKS.value} speakers one after the other: {serial:.4f} s of steps, "
    f"{serial / joint:.1f} times the joint step.",
  ]
  return "\n".join([*lines, ""])


def _percent(row: dict[str, Any]) -> str:
  return f"{100 * row['mfu']:.1f}%" if "mfu" in row else "unknown"


if __name__ == "__main__":
  app.run(main)
