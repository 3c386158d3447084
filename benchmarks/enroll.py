"""What a new speaker costs: `hra enroll` with 10 recordings, compilation cached.

    hra quickstart --workdir=runs/quickstart
    python benchmarks/enroll.py --workdir=runs/quickstart

Speakers that the run has never heard join a copy of it, one by one, each by a command
of its own: the first of each way to begin fills the compilation cache, the others
count. CPU seconds are those of the command and of the processes that it starts.
Every file that was there before is compared byte for byte. Writes docs/enroll.json and
docs/enroll.md.
"""

import hashlib
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import results
from absl import app, flags, logging

from hra.config import SyntheticConfig
from hra.data.synthetic.corpus import synthesize
from hra.errors import InputError

_OUT = results.define_out()
_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/quickstart", "A finished quickstart."
)
_TIMES = flags.DEFINE_integer("times", 3, "Speakers who count, of each way.")

RECORDINGS = 10
INITS = ("mean", "nearest")


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.WARNING)
  with tempfile.TemporaryDirectory() as folder:
    scratch = pathlib.Path(folder)
    run = scratch / "run"
    shutil.copytree(
      _WORKDIR.value, run, ignore=shutil.ignore_patterns("data", "enrolled")
    )
    manifests = _newcomers(scratch, count=len(INITS) * (1 + _TIMES.value))
    before = _hashes(run)
    rows = [_measured(run, init, manifests) for init in INITS]
    _check_unchanged(run, before)
  about = results.about("enroll")
  results.write(
    "enroll",
    figures={**about, "recordings": RECORDINGS, "ways": rows},
    markdown=_markdown(about, rows, unchanged=len(before)),
    out=_OUT.value,
  )


def _newcomers(folder: pathlib.Path, *, count: int) -> list[pathlib.Path]:
  """Manifests of `RECORDINGS` recordings of one new speaker each."""
  spec = SyntheticConfig(
    speakers=count,
    train_utterances=RECORDINGS,
    dev_utterances=1,
    test_utterances=1,
    seed=1000,
  )
  manifest = synthesize(folder / "speech", spec=spec)["train"]
  lines: dict[str, list[str]] = {}
  for line in pathlib.Path(manifest).read_text().splitlines():
    told = json.loads(line)
    name = f"new-{told['speaker']}"
    lines.setdefault(name, []).append(json.dumps({**told, "speaker": name}))
  paths = []
  for name, each in lines.items():
    paths.append(pathlib.Path(manifest).with_name(f"{name}.jsonl"))
    paths[-1].write_text("\n".join(each) + "\n")
  return paths


def _measured(
  run: pathlib.Path, init: str, manifests: list[pathlib.Path]
) -> dict[str, Any]:
  """The first of the speakers that are left fills the cache, the others count."""
  each = [_enroll(run, init, manifests.pop(0)) for _ in range(1 + _TIMES.value)]
  first, *others = each
  return {
    "init": init,
    "first_cpu_seconds": first["cpu_seconds"],
    **{
      field: statistics.median(other[field] for other in others)
      for field in ("cpu_seconds", "wall_seconds")
    },
    "most_cpu_seconds": max(other["cpu_seconds"] for other in others),
  }


def _enroll(
  run: pathlib.Path, init: str, manifest: pathlib.Path
) -> dict[str, float]:
  command = [
    *(sys.executable, "-m", "hra.commands.enroll"),
    *(f"--workdir={run}", f"--source={manifest}", f"--init={init}"),
  ]
  before, start = _spent(), time.monotonic()
  done = subprocess.run(
    command,
    capture_output=True,
    text=True,
    env={**os.environ, "HRA_CACHE": str(run.parent / "cache")},
  )
  if done.returncode:
    raise InputError(
      manifest,
      expected="a speaker who joins",
      got=f"exit code {done.returncode}: {done.stderr.strip()}",
    )
  return {
    "cpu_seconds": _spent() - before,
    "wall_seconds": time.monotonic() - start,
  }


def _spent() -> float:
  """CPU seconds of the processes that have ended."""
  usage = resource.getrusage(resource.RUSAGE_CHILDREN)
  return usage.ru_utime + usage.ru_stime


def _hashes(folder: pathlib.Path) -> dict[str, str]:
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.name != ".lock"
  }


def _check_unchanged(run: pathlib.Path, before: dict[str, str]) -> None:
  after = _hashes(run)
  for name, digest in before.items():
    if after.get(name) != digest:
      raise InputError(
        run / name, expected="the same bytes as before", got="others"
      )


def _markdown(
  about: dict[str, str], rows: Sequence[dict[str, Any]], *, unchanged: int
) -> str:
  note = (
    f"{RECORDINGS} recordings a speaker, medians of {_TIMES.value}; "
    f"{unchanged} files that were there before are the same, byte for byte."
  )
  lines = [
    results.title(about, note=note),
    "",
    "| begins as | CPU s | most | wall s | CPU s with nothing cached |",
    "|---|---|---|---|---|",
  ]
  lines += [
    f"| {row['init']} | {row['cpu_seconds']:.1f} | {row['most_cpu_seconds']:.1f} "
    f"| {row['wall_seconds']:.1f} | {row['first_cpu_seconds']:.1f} |"
    for row in rows
  ]
  return "\n".join([*lines, ""])


if __name__ == "__main__":
  app.run(main)
