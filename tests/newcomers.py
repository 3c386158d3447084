"""Recordings of tasks that no run has, and the files of a folder."""

import json
from collections.abc import Sequence
from pathlib import Path

import corpus
import numpy as np
import soundfile


def write(
  folder: Path,
  *,
  names: Sequence[str | None] = ("zoe",),
  count: int = 6,
  seconds: float = 0.6,
  seed: int = 5,
) -> Path:
  """A manifest of `count` recordings of each name; None names nobody."""
  rng = np.random.default_rng(seed)
  lines = []
  for name in names:
    for index in range(count):
      path = folder / f"{name}-{index}.wav"
      path.parent.mkdir(parents=True, exist_ok=True)
      wave = 0.1 * rng.standard_normal(int(16_000 * seconds))
      soundfile.write(path, wave, 16_000)
      line = {
        "audio_filepath": f"{name}-{index}.wav",
        "text": corpus.WORDS[index],
      }
      lines.append(line if name is None else {**line, "speaker": name})
  manifest = folder / "new.jsonl"
  manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return manifest


def files(folder: Path) -> dict[str, bytes]:
  """Every file below a folder, by its path there."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }
