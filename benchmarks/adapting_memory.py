"""The memory of one contestant of adapting.py, in a process that has nothing else.

    python benchmarks/adapting_memory.py --contestant=NAME --folder=FOLDER \
        --speakers=16 --recordings=2 --seconds=4

Prints resident bytes as JSON: `before` anything but imports, and at the `peak` of
steps, with weights and whatever compiling took.
"""

import json
import pathlib
from collections.abc import Sequence

import adapting_ours as ours
from absl import app, flags

_CONTESTANT = flags.DEFINE_string("contestant", "", "One of adapting.py's.")
_FOLDER = flags.DEFINE_string("folder", "", "What adapting.py made.")
_SPEAKERS = flags.DEFINE_integer("speakers", 16, "")
_RECORDINGS = flags.DEFINE_integer("recordings", 2, "")
_SECONDS = flags.DEFINE_float("seconds", 4.0, "")

STEPS = 2


def main(argv: Sequence[str]) -> None:
  del argv
  import adapting

  shape = ours.Shape(_SPEAKERS.value, _RECORDINGS.value, _SECONDS.value)
  name = _CONTESTANT.value
  if name in ours.NAMES:
    adapting.set_up()
  else:
    import adapting_torch  # noqa: F401 (what it takes stands in `before`)
  before = _resident("VmRSS")
  run = adapting.built(pathlib.Path(_FOLDER.value), shape, name).run
  for _ in range(STEPS):
    adapting.wait(run())
  print(json.dumps({"before": before, "peak": _resident("VmHWM")}))


def _resident(field: str) -> int:
  """Bytes that the kernel counts for this process under a name."""
  for line in pathlib.Path("/proc/self/status").read_text().splitlines():
    if line.startswith(f"{field}:"):
      return 1024 * int(line.split()[1])
  raise OSError(f"no {field} in /proc/self/status")


if __name__ == "__main__":
  app.run(main)
