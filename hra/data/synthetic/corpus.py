"""A corpus of synthesised speech: its configuration in, WAV and manifests out.

    OUT/spec.json                          what was asked for
    OUT/audio/SPLIT/SPEAKER/ID.wav         16 kHz, mono, 16-bit PCM
    OUT/train.jsonl, dev.jsonl, test.jsonl one JSON object a line

The files are the same, byte for byte, however many processes make them. The
manifests are written last: a folder that has them is complete, one that was
interrupted goes on from the recordings that it has.
"""

import io
import json
import math
import os
import queue
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from hra import config_tree
from hra.config import SyntheticConfig
from hra.data.synthetic import acoustics, sentences, speakers
from hra.data.synthetic.espeak import Espeak, version
from hra.data.synthetic.speakers import Speaker
from hra.dims import SAMPLE_RATE
from hra.errors import InputError
from hra.files import write_aside
from hra.keys import host_rng

_FORMAT = 1
"""Rises when the same configuration would give other recordings."""
_LATER = ("combinations", "severity_spread")
"""Fields that no corpus had at first: left out of its identity at their defaults,
which change nothing, so that a corpus made before is known again."""


class Utterance(NamedTuple):
  """One line of a manifest, before it is spoken."""

  id: str
  split: str
  speaker: str
  text: str

  @property
  def path(self) -> str:
    """Relative to the manifests."""
    return f"audio/{self.split}/{self.speaker}/{self.id}.wav"


def synthesize(
  out: str | os.PathLike[str],
  *,
  spec: SyntheticConfig,
  jobs: int = 2,
  progress: bool = True,
) -> dict[str, Path]:
  """Writes the corpus, or returns at once where it is complete.

  Args:
    out: a local folder: new, empty, or of the same spec.
    jobs: processes; they change nothing but the time.
    progress: a bar on the standard error stream.

  Returns:
    The manifest of each split.

  Raises:
    InputError: no synthesiser is installed; the folder holds another corpus;
      a split has too few sentences.
    ConfigError: a field of the spec can't stand.
  """
  config_tree.validate(spec, path="synthetic")
  if jobs < 1:
    raise InputError("jobs", expected="at least 1", got=str(jobs))
  folder = Path(out)
  manifests = {split: folder / f"{split}.jsonl" for split in sentences.SPLITS}
  utterances = plan(spec)
  _claim(folder, _identity(spec))
  if all(path.exists() for path in manifests.values()):
    return manifests
  samples: dict[str, int] = {}
  with tqdm(
    total=len(utterances),
    desc="synthesising",
    unit="utt",
    disable=not progress,
  ) as bar:
    for name, count in _run_workers(folder, spec=spec, jobs=jobs):
      samples[name] = count
      bar.update()
  for split, path in manifests.items():
    lines = [
      _line(utterance, samples[utterance.id])
      for utterance in utterances
      if utterance.split == split
    ]
    _write(path, "".join(lines).encode())
  return manifests


def cast(spec: SyntheticConfig) -> dict[str, Speaker]:
  """Name -> speaker, in the order of the manifests."""
  if spec.population == "atypical":
    members = speakers.atypical_speakers(spec)
  else:
    members = [
      Speaker(voice)
      for voice in (
        *speakers.typical_voices(spec.speakers, seed=spec.seed),
        *speakers.unseen_voices(spec.unseen_speakers, seed=spec.seed),
      )
    ]
  return {member.name: member for member in members}


def describe(spec: SyntheticConfig) -> dict[str, dict[str, Any]]:
  """Name -> what is particular in how a speaker speaks, for JSON.

  `severity` is what the habits were drawn for, `rules` and `effects` are their
  names with probabilities and strengths, `pauses` is the probability of one after
  a word. `strength` sums up the habits that came of it: the sum of the rules'
  probabilities.
  """
  return {
    name: {
      "severity": member.severity,
      "strength": math.fsum(chance for _, chance in member.rules),
      "rules": dict(member.rules),
      "effects": dict(member.effects),
      "pauses": member.pauses,
    }
    for name, member in cast(spec).items()
  }


def plan(spec: SyntheticConfig) -> list[Utterance]:
  """Who says what in which split; no sentence stands in two splits.

  Atypical speakers have all three splits. Typical voices have train and dev;
  test is spoken by the unseen voices.

  Raises:
    InputError: a split has too few sentences.
  """
  counts = {
    "train": spec.train_utterances,
    "dev": spec.dev_utterances,
    "test": spec.test_utterances,
  }
  utterances = []
  for index, name in enumerate(cast(spec)):
    if spec.population == "atypical":
      splits: tuple[str, ...] = sentences.SPLITS
    else:
      splits = ("train", "dev") if index < spec.speakers else ("test",)
    for split in splits:
      rng = host_rng(spec.seed, "sentences", name, split)
      texts = sentences.sample(split, counts[split], rng=rng)
      utterances += [
        Utterance(f"{name}-{split}-{place:04d}", split, name, text)
        for place, text in enumerate(texts)
      ]
  sentences.check_disjoint(
    **{
      split: [each.text for each in utterances if each.split == split]
      for split in sentences.SPLITS
    }
  )
  return utterances


def render(
  utterance: Utterance,
  *,
  speaker: Speaker,
  spec: SyntheticConfig,
  espeak: Espeak,
) -> np.ndarray:
  """An utterance as recorded: pcm_S, int16, with silence around and noise."""
  rng = host_rng(spec.seed, "render", utterance.id, utterance.text)
  spoken_S = speaker.say(utterance.text, espeak=espeak, rng=rng)
  before, after = (rng.uniform(0.08, 0.2, 2) * SAMPLE_RATE).astype(int)
  wave_S = acoustics.add_noise(
    np.pad(spoken_S, (before, after)),
    snr=rng.uniform(spec.snr_low, spec.snr_high),
    colour=rng.uniform(0.0, 2.0),
    rng=rng,
  )
  wave_S = acoustics.to_level(wave_S, decibels=rng.uniform(-29.0, -20.0))
  return np.round(wave_S * 32767).astype(np.int16)


def speak_all(
  folder: Path, *, spec: SyntheticConfig, share: int, shares: int
) -> Iterator[tuple[str, int]]:
  """Records one of `shares` equal parts of the plan that is not there yet.

  Yields:
    (utterance id, samples), also of recordings that were there.
  """
  members = cast(spec)
  with Espeak() as espeak:
    for utterance in plan(spec)[share::shares]:
      path = folder / utterance.path
      if path.exists():
        with wave.open(str(path), "rb") as file:
          yield utterance.id, file.getnframes()
        continue
      pcm_S = render(
        utterance,
        speaker=members[utterance.speaker],
        spec=spec,
        espeak=espeak,
      )
      _write(path, _wave_file(pcm_S))
      yield utterance.id, len(pcm_S)


def _run_workers(
  folder: Path, *, spec: SyntheticConfig, jobs: int
) -> Iterator[tuple[str, int]]:
  """Runs `speak_all` in processes that import no JAX and fork nothing."""
  lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
  environment = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    "OPENBLAS_NUM_THREADS": "1",
  }
  with ExitStack() as stack:
    workers = []
    for share in range(jobs):
      job = {
        "folder": str(folder),
        "spec": config_tree.to_dict(spec),
        "share": share,
        "shares": jobs,
      }
      worker = stack.enter_context(
        subprocess.Popen(
          [sys.executable, "-m", "hra.data.synthetic.worker", json.dumps(job)],
          stdout=subprocess.PIPE,
          text=True,
          env=environment,
          process_group=0,  # Ctrl-C is for the parent, which ends it
        )
      )
      forwarder = threading.Thread(
        target=_forward, args=(worker, lines), daemon=True
      )
      forwarder.start()
      stack.callback(forwarder.join)  # before its pipe is closed
      stack.callback(worker.terminate)
      workers.append(worker)
    running = jobs
    while running:
      line = lines.get()
      if line is None:
        running -= 1
      else:
        name, samples = line.split()
        yield name, int(samples)
    for worker in workers:
      if worker.wait():
        raise subprocess.CalledProcessError(worker.returncode, worker.args)


def _forward(
  worker: subprocess.Popen[str], lines: "queue.SimpleQueue[str | None]"
) -> None:
  assert worker.stdout is not None
  for line in worker.stdout:
    lines.put(line)
  lines.put(None)


def _identity(spec: SyntheticConfig) -> str:
  """All that decides the recordings, as the JSON of spec.json."""
  initial = SyntheticConfig()
  fields = {
    name: value
    for name, value in config_tree.to_dict(spec).items()
    if name not in _LATER or value != getattr(initial, name)
  }
  record = {"format": _FORMAT, "espeak": version(), "spec": fields}
  return json.dumps(record, indent=2, sort_keys=True)


def _claim(folder: Path, identity: str) -> None:
  """Marks the folder as this spec's, or refuses another's."""
  path = folder / "spec.json"
  if path.exists():
    if path.read_text() != identity:
      raise InputError(
        folder,
        expected="a new folder or one of the same synthetic spec",
        got=f"a corpus of another spec ({path.name})",
        fix="choose another folder or delete this one",
      )
    return
  visible = folder.glob("[!.]*")  # a write that was cut off leaves a dot file
  if folder.is_file() or any(visible):
    raise InputError(
      folder,
      expected="a new or empty folder",
      got="something else",
      fix="choose another folder",
    )
  _write(path, identity.encode())


def _line(utterance: Utterance, samples: int) -> str:
  record = {
    "audio_filepath": utterance.path,
    "duration": round(samples / SAMPLE_RATE, 4),
    "text": utterance.text,
    "speaker": utterance.speaker,
    "id": utterance.id,
  }
  return json.dumps(record) + "\n"


def _write(path: Path, content: bytes) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  write_aside(path, content)


def _wave_file(pcm_S: np.ndarray) -> bytes:
  content = io.BytesIO()
  with wave.open(content, "wb") as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(SAMPLE_RATE)
    file.writeframes(pcm_S.astype("<i2").tobytes())
  return content.getvalue()
