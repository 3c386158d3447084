"""A hundred hours through the front door: prepare, plan, stream, keep ahead.

    python benchmarks/data.py --workdir=runs/data_benchmark

Generates a corpus in LibriSpeech's layout, with lengths like those of its
train-clean-100 (12.7 s on average, most near 15 s), prepares it by `hra prepare`
in a process of its own, plans an epoch of pretraining, streams all of it, and
trains the tiny backbone on some of it. Reports hours a second, the largest
process's memory, what of the batches is padding, how many shapes there are to
compile, and the part of the training time spent waiting for data. What is generated
and prepared already stays. Writes docs/data.json and docs/data.md.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import results
import soundfile
import tqdm
from absl import app, flags, logging

from hra import jobs, run
from hra.commands import configs, process
from hra.data.dataset import open_split
from hra.dims import SAMPLE_RATE
from hra.keys import host_rng

_OUT = results.define_out()
_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/data_benchmark", "Where corpus, data and runs go."
)
_HOURS = flags.DEFINE_float("hours", 100.0, "Of the corpus.")
_STEPS = flags.DEFINE_integer("steps", 40, "Of training, to see who waits.")
_BUCKETS = flags.DEFINE_integer("buckets", 8, "Length buckets.")

SPEAKERS = 251
"""As in train-clean-100."""
_LETTERS = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
_LETTERS_PER_WORD, _WORDS_PER_SECOND = 4.5, 2.7
_MIB = 1 << 20


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)
  process.set_up()
  workdir = pathlib.Path(_WORKDIR.value)
  corpus = workdir / f"{_HOURS.value:g}h" / "LibriSpeech"
  generate(corpus, hours=_HOURS.value)
  data = workdir / f"{_HOURS.value:g}h" / "prepared"
  figures = {
    "prepare": prepare(corpus, data),
    **stream_and_train(data, workdir / "run"),
  }
  about = results.about("data")
  results.write(
    "data",
    figures={**about, "hours": _HOURS.value, **figures},
    markdown=markdown(about, figures),
    out=_OUT.value,
  )


def lengths(hours: float) -> np.ndarray:
  """Seconds of each utterance: three quarters near 15, the rest shorter."""
  rng = host_rng(0, "lengths")
  count = int(hours * 3600 / 5)
  near = rng.random(count) < 0.77
  seconds = np.where(
    near, rng.normal(14.5, 1.2, count), rng.uniform(2.0, 13.5, count)
  ).clip(1.4, 24.5)
  return seconds[: np.searchsorted(seconds.cumsum(), hours * 3600)]


def generate(root: pathlib.Path, *, hours: float) -> None:
  """Writes SUBSET/READER/CHAPTER/*.flac with transcripts, if it isn't there."""
  done = root / "complete"
  if done.exists():
    return
  parts = np.array_split(lengths(hours), SPEAKERS)
  with futures.ProcessPoolExecutor() as pool:
    made = [
      pool.submit(_read_aloud, root, reader, seconds)
      for reader, seconds in enumerate(parts, start=1)
    ]
    waiting = futures.as_completed(made)
    for each in tqdm.tqdm(waiting, total=len(made), desc="generating"):
      each.result()
  done.touch()


def _read_aloud(root: pathlib.Path, reader: int, seconds: np.ndarray) -> None:
  """One reader: noise in the rhythm of syllables, and made-up words."""
  rng = host_rng(0, "reader", reader)
  folder = root / "train-clean-100" / str(reader) / "1"
  folder.mkdir(parents=True, exist_ok=True)
  size = 60 * SAMPLE_RATE
  rhythm = 1 + np.sin(np.arange(size) * (2 * np.pi * 4 / SAMPLE_RATE))
  noise = np.convolve(rng.normal(size=size), np.ones(6) / 6, mode="same")
  voice = (2000 * rhythm * noise).astype(np.int16)
  lines = []
  for index, duration in enumerate(seconds):
    name = f"{reader}-1-{index:04d}"
    start = rng.integers(size // 2)
    wave = voice[start : start + int(duration * SAMPLE_RATE)]
    soundfile.write(folder / f"{name}.flac", wave, SAMPLE_RATE)
    words = max(int(duration * _WORDS_PER_SECOND), 1)
    text = " ".join(
      "".join(rng.choice(_LETTERS, 1 + rng.poisson(_LETTERS_PER_WORD - 1)))
      for _ in range(words)
    )
    lines.append(f"{name} {text.upper()}\n")
  (folder / f"{reader}-1.trans.txt").write_text("".join(lines))


def prepare(corpus: pathlib.Path, data: pathlib.Path) -> dict[str, float]:
  """`hra prepare` in a process of its own; nothing where it was done."""
  if data.exists():
    return {}
  start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
  child = subprocess.Popen(
    [
      *(sys.executable, "-m", "hra.commands.prepare"),
      *(f"--source={corpus}", f"--out={data}", "--split_by=given"),
    ]
  )
  peaks: dict[int, float] = {}
  while child.poll() is None:
    _note_peaks(child.pid, peaks)
    time.sleep(0.2)
  if child.returncode:
    raise SystemExit(f"hra prepare failed: {child.returncode}")
  after = resource.getrusage(resource.RUSAGE_CHILDREN)
  hours = float(open_split(data, "train").samples.sum()) / SAMPLE_RATE / 3600
  return {
    "hours": hours,
    "wall_seconds": time.monotonic() - start,
    "cpu_seconds": after.ru_utime
    + after.ru_stime
    - before.ru_utime
    - before.ru_stime,
    "processes": len(peaks),
    "largest_process_mib": max(peaks.values()),
  }


def _note_peaks(pid: int, peaks: dict[int, float]) -> None:
  """The most memory that a process and its children have held, in MiB."""
  with contextlib.suppress(OSError):  # it may end at any moment
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    for line in status.splitlines():
      if line.startswith("VmHWM:"):
        peaks[pid] = int(line.split()[1]) / 1024
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
      for each in (task / "children").read_text().split():
        _note_peaks(int(each), peaks)


def stream_and_train(
  data: pathlib.Path, workdir: pathlib.Path
) -> dict[str, Any]:
  """Plans an epoch, streams it, then trains on some of it."""
  config = configs.load(configs.experiment("tiny_backbone"))
  config.data = dataclasses.replace(
    config.data,
    source="prepared",
    path=str(data),
    buckets=_BUCKETS.value,
    utterances_per_task=16,
  )
  parts = run.assemble(config, workdir / str(time.time_ns()))
  loader = jobs.make_loader(parts)
  size = config.data.utterances_per_task
  epoch = -(-len(parts.train_split) // size)
  before = _resident()
  buckets = {loader.plan[step].bucket for step in range(epoch)}
  return {
    "plan": {
      "batches": epoch,
      "utterances_per_batch": size,
      "shapes": len(buckets),
      "seconds": [round(bound / SAMPLE_RATE, 2) for bound in parts.bounds],
    },
    "stream": _stream(loader, epoch) | {"before_mib": before},
    "train": _train(parts, loader),
  }


def _stream(loader: Any, epoch: int) -> dict[str, float]:
  """Every batch of an epoch, thrown away: audio a second, padding, memory."""
  start, cpu = time.monotonic(), time.process_time()
  audio = cells = 0
  batches = itertools.islice(loader.batches(0), epoch)
  for batch in tqdm.tqdm(batches, total=epoch, desc="streaming"):
    audio += int(batch.lengths_KB.sum())
    cells += batch.wave_KBS.size
  wall = time.monotonic() - start
  return {
    "hours": audio / SAMPLE_RATE / 3600,
    "padding": 1 - audio / cells,
    "wall_seconds": wall,
    "cpu_seconds": time.process_time() - cpu,
    "audio_seconds_per_second": audio / SAMPLE_RATE / wall,
    "after_mib": _resident(),
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
  }


def _train(parts: run.Parts, loader: Any) -> dict[str, float]:
  """Steps of the tiny backbone: how long they wait for their batches."""
  state = run.initial_state(parts)
  job = jobs.make_job(parts, loader, initial=state)
  waited: list[float] = []
  stepped: list[float] = []
  shapes: set[int] = set()
  batches: Iterator[Any] = iter(job.batches(0))
  bar = tqdm.tqdm(total=_STEPS.value, desc="training")
  while len(waited) < _STEPS.value:
    start = time.monotonic()
    batch = next(batches)
    ready = time.monotonic()
    state, metrics = job.step(state, job.frozen, batch)
    metrics.shared_norm.block_until_ready()
    if batch.wave_KBS.shape[-1] in shapes:  # compiled already
      waited.append(ready - start)
      stepped.append(time.monotonic() - ready)
      bar.update()
    shapes.add(batch.wave_KBS.shape[-1])
  return {
    "steps": len(waited),
    "median_step_seconds": float(np.median(stepped)),
    "median_wait_seconds": float(np.median(waited)),
    "waiting": sum(waited) / (sum(waited) + sum(stepped)),
  }


def _resident() -> float:
  """MiB that this process holds now."""
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  return pages * resource.getpagesize() / _MIB


def markdown(about: dict[str, Any], figures: dict[str, Any]) -> str:
  made, plan = figures["prepare"], figures["plan"]
  stream, train = figures["stream"], figures["train"]
  lines = [
    results.title(
      about, note=f"{_HOURS.value:g} hours in LibriSpeech's layout."
    ),
    "",
    "| | |",
    "|---|---|",
  ]
  if made:
    lines += [
      f"| prepare, wall | {made['wall_seconds']:.0f} s |",
      f"| prepare, CPU seconds per hour of audio | "
      f"{made['cpu_seconds'] / made['hours']:.1f} |",
      f"| prepare, largest process | {made['largest_process_mib']:.0f} MiB |",
    ]
  lines += [
    f"| shapes to compile | {plan['shapes']} |",
    f"| padding of an epoch, speed perturbed | {100 * stream['padding']:.1f}% |",
    f"| streaming, audio seconds a second | "
    f"{stream['audio_seconds_per_second']:,.0f} |",
    f"| streaming, memory before and after the epoch | "
    f"{stream['before_mib']:.0f} and {stream['after_mib']:.0f} MiB |",
    f"| training step of the tiny backbone, median | "
    f"{train['median_step_seconds']:.2f} s |",
    f"| part of the training time spent waiting for data | "
    f"{100 * train['waiting']:.1f}% |",
    "",
  ]
  return "\n".join(lines)


if __name__ == "__main__":
  app.run(main)
