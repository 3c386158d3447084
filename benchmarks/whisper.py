"""Greedy search of Whisper tiny: ours, four speakers mixed, and transformers.

    pip install torch==2.13.0
    python benchmarks/whisper.py

Random models of the published sizes hear four recordings of 10 s and say 64 labels of
each, features and encoder included; nothing ends earlier. Blocks take turns in one
process; seconds are medians. Writes docs/whisper.json and docs/whisper.md.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import results
from absl import app, flags, logging
from timing import median_ratio, take_turns

from hra.adapters import families
from hra.backbone.foreign.published import PUBLISHED, outline
from hra.backbone.network import Backbone
from hra.commands import process
from hra.config import AdapterConfig, BackboneConfig, FrontendConfig
from hra.dims import SAMPLE_RATE
from hra.evaluate.transcribe import greedy
from hra.model import Model

NAME = "openai/whisper-tiny"
RECORDINGS, SECONDS, LABELS = 4, 10, 64
PROMPT = (50258, 50259, 50359, 50363)
SHOWN = {
  "theirs": "transformers",
  "bare": "hra, bare backbone",
  "residual": "hra, four speakers' residual rows, both stacks",
  "hra": "hra, four speakers' HRA heads, both stacks",
}


def define_flags() -> None:
  """Only of the program: tests import this module too."""
  results.define_out()
  flags.DEFINE_integer("blocks", 7, "Blocks of each case.")


def waves() -> np.ndarray:
  """[B, S] of noise."""
  rng = np.random.default_rng(0)
  size = (RECORDINGS, SECONDS * SAMPLE_RATE)
  return (0.1 * rng.standard_normal(size)).astype(np.float32)


def ours(
  config: BackboneConfig, frontend: FrontendConfig
) -> dict[str, Callable[[], Any]]:
  """Searches of a random backbone, by the adapters that act."""
  decoder = dataclasses.replace(
    config.decoder,
    places=len(PROMPT) + LABELS,
    prompt=PROMPT,
    suppressed=(0,),
  )
  config = dataclasses.replace(config, decoder=decoder)
  backbone = jax.jit(
    lambda key: Backbone(config, mels=frontend.num_mels, key=key)
  )(jax.random.key(0))
  wave_BS = waves()
  lengths_B = np.full(len(wave_BS), wave_BS.shape[1], np.int32)
  made = {
    "bare": AdapterConfig(family="none"),
    "residual": AdapterConfig(family="residual", width=16, stacks="both"),
    "hra": AdapterConfig(width=128, stacks="both"),
  }

  def search(adapter_config: AdapterConfig) -> Callable[[], Any]:
    adapter = families.build(adapter_config, config)
    keys_B = jax.random.split(jax.random.key(1), len(wave_BS))
    rows_B = jax.vmap(adapter.init_task)(keys_B)
    shared = adapter.init_shared(jax.random.key(2))
    model = Model(adapter=adapter, frontend=frontend)
    active_B = np.ones(len(wave_BS), bool)
    return lambda: greedy(
      model, backbone, shared, rows_B, active_B, wave_BS, lengths_B
    )

  return {name: search(each) for name, each in made.items()}


def theirs() -> Callable[[], Any]:
  """The same by transformers, its features included."""
  import torch
  import transformers

  config = transformers.WhisperConfig(
    **PUBLISHED[NAME].config, max_target_positions=len(PROMPT) + LABELS
  )
  model = transformers.WhisperForConditionalGeneration(config).eval()
  model.generation_config = transformers.GenerationConfig(
    max_new_tokens=LABELS,
    decoder_start_token_id=PROMPT[0],
    suppress_tokens=[config.eos_token_id],
    eos_token_id=config.eos_token_id,
    pad_token_id=config.pad_token_id,
  )
  extractor = transformers.WhisperFeatureExtractor()
  prompt = torch.tensor([PROMPT] * RECORDINGS)
  given = list(waves())

  def search() -> np.ndarray:
    mel = extractor(
      given, sampling_rate=SAMPLE_RATE, return_tensors="pt"
    ).input_features
    with torch.no_grad():
      found = transformers.GenerationMixin.generate(
        model, mel, decoder_input_ids=prompt, do_sample=False
      )
    assert found.shape[1] == len(PROMPT) + LABELS
    return np.asarray(found)

  return search


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.FATAL)
  process.set_up()
  runs = {"theirs": theirs(), **ours(*outline(NAME))}
  times = take_turns(runs, blocks=flags.FLAGS.blocks, steps=1)
  rows = {
    name: {
      "wall_seconds": each.wall,
      "cpu_seconds": each.cpu,
      "wall_ratio": median_ratio(each.walls, times["theirs"].walls),
      "cpu_ratio": median_ratio(each.cpus, times["theirs"].cpus),
    }
    for name, each in times.items()
  }
  about = results.about("whisper")
  note = (
    f"{RECORDINGS} recordings of {SECONDS} s, {LABELS} labels each; ratios are "
    "medians of neighbouring blocks"
  )
  lines = [
    "# Greedy search of Whisper tiny",
    "",
    results.title(about, note=note),
    "",
    "| | wall s | CPU s | wall ratio | CPU ratio |",
    "|---|---|---|---|---|",
    *(
      f"| {SHOWN[name]} | {row['wall_seconds']:.2f} | {row['cpu_seconds']:.2f} "
      f"| {row['wall_ratio']:.2f} | {row['cpu_ratio']:.2f} |"
      for name, row in rows.items()
    ),
    "",
  ]
  results.write(
    "whisper",
    figures={**about, "cases": rows},
    markdown="\n".join(lines),
    out=flags.FLAGS.out,
  )


if __name__ == "__main__":
  define_flags()
  app.run(main)
