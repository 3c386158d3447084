"""How many utterances a second the host perturbs: speed, noise, rooms, and the mix.

    python benchmarks/multistyle.py

Recordings of 10 s in one thread, each changed in full (`part` 1), but for the last
row, the mix of 8:2 with all that there is. Blocks of the cases take turns in one
process; wall and CPU seconds are medians. Rooms are simulated first, into an empty
cache, as by the first run that asks for them; recorded noise is four files of a
minute. Writes docs/multistyle.json and docs/multistyle.md.
"""

import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import results
import soundfile
from absl import app, flags, logging
from timing import take_turns

from hra.config import DataConfig, MultistyleConfig
from hra.data import sounds
from hra.data.perturb import perturb
from hra.dims import SAMPLE_RATE
from hra.keys import host_rng

_OUT = results.define_out()
_BLOCKS = flags.DEFINE_integer("blocks", 15, "Blocks of each case.")
_UTTERANCES = flags.DEFINE_integer("utterances", 20, "Utterances of a block.")

SECONDS = 10.0


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.FATAL)
  with tempfile.TemporaryDirectory() as scratch:
    os.environ["HRA_CACHE"] = f"{scratch}/cache"
    cases = _cases(_recorded(pathlib.Path(scratch) / "noise"))
    everything = cases["8:2 of all"].multistyle
    wall, cpu = time.perf_counter(), time.process_time()
    banks = sounds.opened(everything)
    made = time.perf_counter() - wall, time.process_time() - cpu
    runs = {name: _run(config, banks) for name, config in cases.items()}
    times = take_turns(runs, blocks=_BLOCKS.value, steps=1)
  rows = [
    {
      "case": name,
      "wall_seconds": each.wall / _UTTERANCES.value,
      "cpu_seconds": each.cpu / _UTTERANCES.value,
    }
    for name, each in times.items()
  ]
  about = results.about("multistyle")
  rooms = everything.rooms.count
  results.write(
    "multistyle",
    figures={
      **about,
      "rows": rows,
      "rooms": {
        "count": rooms,
        "wall_seconds": made[0],
        "cpu_seconds": made[1],
      },
    },
    markdown=_markdown(about, rows, rooms=rooms, made=made),
    out=_OUT.value,
  )


def _recorded(folder: pathlib.Path) -> str:
  folder.mkdir()
  for number in range(4):
    rng = host_rng(0, "noise", number)
    wave = 0.1 * rng.standard_normal(60 * SAMPLE_RATE)
    soundfile.write(folder / f"{number}.wav", wave, SAMPLE_RATE)
  return str(folder)


def _cases(folder: str) -> dict[str, DataConfig]:
  def styled(speed: float = 0.0, **style: Any) -> DataConfig:
    return DataConfig(
      speed_low=1 - speed,
      speed_high=1 + speed,
      multistyle=MultistyleConfig(**{"part": 1.0, **style}),
    )

  recorded = {"noise": "files", "noise_files": folder}
  everything = {**recorded, "noise": "either", "reverb": "rooms"}
  return {
    "speed": styled(0.1),
    "recorded noise": styled(**recorded),
    "coloured noise": styled(noise="coloured"),
    "room": styled(reverb="rooms"),
    "all": styled(0.1, **everything),
    "8:2 of all": styled(0.1, **{**everything, "part": 0.2}),
  }


def _run(config: DataConfig, banks: sounds.Sounds) -> Callable[[], Any]:
  rng = host_rng(0, "speech")
  wave_S = 0.1 * rng.standard_normal(
    round(SECONDS * SAMPLE_RATE), dtype=np.float32
  )

  def run() -> Any:
    for number in range(_UTTERANCES.value):
      heard = perturb(
        wave_S,
        rng=host_rng(0, "perturb", number),
        config=config,
        part=config.multistyle.part,
        sounds=banks,
        max_samples=2 * len(wave_S),
      )
    return heard.wave_S

  return run


def _markdown(
  about: dict[str, Any],
  rows: list[dict[str, Any]],
  *,
  rooms: int,
  made: tuple[float, float],
) -> str:
  note = (
    f"medians of {_BLOCKS.value} blocks of {_UTTERANCES.value} recordings of "
    f"{SECONDS:g} s, one thread; other work shared the machine. To simulate {rooms} "
    f"rooms took {made[0]:.0f} s, {made[1]:.0f} CPU s."
  )
  lines = [
    results.title(about, note=note),
    "",
    "| | utterances a second | CPU, ms an utterance | audio seconds a CPU second |",
    "|---|---|---|---|",
  ]
  lines += [
    f"| {row['case']} | {1 / row['wall_seconds']:,.0f} | "
    f"{1e3 * row['cpu_seconds']:.1f} | {SECONDS / row['cpu_seconds']:,.0f} |"
    for row in rows
  ]
  return "\n".join([*lines, ""])


if __name__ == "__main__":
  app.run(main)
