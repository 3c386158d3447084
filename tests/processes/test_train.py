"""`hra train` as two processes: stopped, killed and refused, and as if alone."""

import json
import signal
import time
from pathlib import Path

import corpus
import jax
import numpy as np
import pytest
import several

from hra import run

EXPERIMENT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import corpus

def get_config():
  config = corpus.config(
    Path({data!r}), Path({backbone!r}), eval_every=8, select="best"
  )
  config.train.steps = 16
  config.train.log_every = 1
  return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """With an experiment of 24 joint steps, which one process has trained."""
  folder = tmp_path_factory.mktemp("several")
  data = corpus.prepared(folder)
  backbone = corpus.backbone_folder(folder, data)
  tests = str(Path(corpus.__file__).parent)
  (folder / "experiment.py").write_text(
    EXPERIMENT.format(tests=tests, data=str(data), backbone=str(backbone))
  )
  assert _codes(_train(folder, "whole", count=1, devices=2)) == [0]
  return folder


def _start(folder: Path, name: str, *flags: str, verb: str = "train", **how):
  worker = Path(__file__).with_name("trains.py")
  flags = (f"--workdir={folder / name}", *flags)
  if verb == "train":
    flags = (f"--config={folder / 'experiment.py'}", *flags)
  return several.start([str(worker), verb, *flags], **how)


def _train(folder: Path, name: str, *flags: str, **how) -> list[several.Ended]:
  return several.ended(_start(folder, name, *flags, **how))


def _codes(ends: list[several.Ended]) -> list[int]:
  return [each.code for each in ends]


def _losses(workdir: Path) -> list[tuple]:
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  told = map(json.loads, lines)
  return [
    (each["step"], each.get("loss"), each.get("row_norm"), each.get("dev_wer"))
    for each in told
  ]


def _assert_same_bits(workdir: Path, whole: Path) -> None:
  """Losses, all of the state, and what was exported."""
  assert _losses(workdir) == _losses(whole)
  ours, theirs = (
    run.trained_state(run.reopen(each)) for each in (workdir, whole)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)),
    ours,
    theirs,
  )
  for path in (whole / "submodels").glob("*.safetensors"):
    assert (workdir / "submodels" / path.name).read_bytes() == path.read_bytes()
  for name in ("results.json", "verdicts.json", "transcripts.jsonl"):
    assert (workdir / name).read_text() == (whole / name).read_text()


def test_stopped_and_killed_two_end_as_one_process_does(folder):
  ends = _train(folder, "two", HAPPENS=f"1:4:{signal.SIGTERM}", PAUSE="0.15")
  assert _codes(ends) == [75, 75], ends
  # All at one step, with what none of them has heard since.
  told = [each.err.splitlines()[-1].split(";")[0] for each in ends]
  assert told[0] == told[1]
  assert "stopped by SIGTERM at step" in told[0]
  stopped = len([line for line in _losses(folder / "two") if line[1]])
  assert f"step {stopped} of 24" in told[0]
  assert 4 <= stopped < 24

  start = time.monotonic()
  ends = _train(folder, "two", HAPPENS=f"1:3:{signal.SIGKILL}", PAUSE="0.15")
  assert time.monotonic() - start < 120
  assert ends[1].code == -signal.SIGKILL
  assert ends[0].code not in (0, 2, 75), ends[0]

  ends = _train(folder, "two")
  assert _codes(ends) == [0, 0], ends
  assert "wrote" in ends[0].out
  assert ends[1].out == ""
  _assert_same_bits(folder / "two", folder / "whole")
