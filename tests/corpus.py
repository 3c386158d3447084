"""A small prepared corpus, a backbone's folder and a run's configuration."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import soundfile
import tiny

from hra.backbone import store
from hra.config import (
  AdapterConfig,
  Config,
  DataConfig,
  MultistyleConfig,
  TrainConfig,
)
from hra.data.prepare import prepare
from hra.data.tokenizer import Tokenizer

SPEAKERS = ("anna", "bert/b", "cleo")
WORDS = ("abba", "cabbage", "bead", "face", "deaf", "badge", "cafe", "egg")


def write_manifests(folder: Path, *, seed: int = 0) -> dict[str, Path]:
  """Three speakers of coloured noise, with transcripts; wav, flac and ogg."""
  rng = np.random.default_rng(seed)
  manifests = {}
  for split, count in (("train", 6), ("dev", 2), ("test", 3)):
    lines = []
    for speaker in SPEAKERS:
      for index in range(count):
        suffix = ("wav", "flac", "ogg")[index % 3]
        name = f"{split}/{speaker}-{index}.{suffix}"
        rate = (16_000, 22_050, 8_000)[index % 3]
        wave = 0.1 * rng.standard_normal(int(rate * rng.uniform(0.5, 0.7)))
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, rate)
        lines.append(
          {
            "audio_filepath": name,
            "text": f"{split[1]}{rng.choice(WORDS)}",
            "speaker": speaker,
          }
        )
    manifests[split] = folder / f"{split}.jsonl"
    manifests[split].write_text("\n".join(map(json.dumps, lines)) + "\n")
  return manifests


def prepared(folder: Path) -> Path:
  """The corpus, prepared."""
  out = folder / "prepared"
  prepare(write_manifests(folder / "raw"), out)
  return out


def backbone_folder(folder: Path, data: Path) -> Path:
  """An untrained backbone of the tiny shape for the corpus's tokenizer."""
  tokenizer = Tokenizer.load(data / "tokenizer.model")
  module = tiny.backbone(vocabulary=tokenizer.vocabulary)
  store.save(
    folder / "backbone",
    module,
    frontend=tiny.FRONTEND,
    tokenizer=tokenizer,
    about={},
  )
  return folder / "backbone"


def config(data: Path, backbone: Path, **changes) -> Config:
  """A job of 3 tasks, 6 own steps each, in one shape."""
  return Config(
    name="tests",
    backbone_path=str(backbone),
    adapter=AdapterConfig(width=8, heads="both"),
    data=DataConfig(
      path=str(data),
      tasks_per_batch=2,
      utterances_per_task=2,
      eval_batch=4,
      bucket_seconds=(0.72,),
      speed_low=0.9,
      speed_high=1.1,
      multistyle=MultistyleConfig(noise="coloured", part=0.5),
    ),
    train=TrainConfig(
      steps=6,
      log_every=2,
      save_seconds=0.0,
      # Copies: a test that changes its own must not change everybody's.
      rows=dataclasses.replace(tiny.OPTIMIZER),
      shared=dataclasses.replace(tiny.OPTIMIZER),
      **changes,
    ),
  )
