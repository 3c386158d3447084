"""Planned numbers and bytes are those of a run, on 1 and on 8 simulated devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import corpus
import numpy as np
import pytest

WORKER = Path(__file__).parent / "planned.py"
PRETRAINS = (
  "train.mode=pretrain",
  "data.grouping=pooled",
  "adapter.family=none",
  "adapter.width=128",
  "adapter.heads=personal",
  "data.utterances_per_task=8",
  "backbone.vocabulary=0",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  folder = tmp_path_factory.mktemp("planned")
  data = corpus.prepared(folder)
  return data, corpus.backbone_folder(folder, data)


def _told(made, workdir, axes, *assignments):
  environment = {
    **os.environ,
    "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} "
    f"--xla_force_host_platform_device_count={np.prod(axes)}",
    "PYTHONPATH": os.pathsep.join(
      [str(WORKER.parent.parent), os.environ.get("PYTHONPATH", "")]
    ),
  }
  arguments = [*made, workdir, *axes, *assignments]
  done = subprocess.run(
    [sys.executable, str(WORKER), *map(str, arguments)],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
  "assignments",
  [
    ("train.select=best", "train.eval_every=2"),
    ("backbone.weights=int8",),
    PRETRAINS,
  ],
  ids=["adapts", "int8", "pretrains"],
)
@pytest.mark.parametrize(
  "axes",
  [
    pytest.param((1, 1, 1), id="one", marks=pytest.mark.slow),
    pytest.param((2, 2, 2), id="eight"),
  ],
)
def test_what_is_kept_is_what_was_planned(made, tmp_path, axes, assignments):
  if "backbone.weights=int8" in assignments:
    pytest.importorskip("qwix")
  spread = ("data.tasks_per_batch=4",) if np.prod(axes) > 1 else ()
  told = _told(made, tmp_path / "run", axes, *spread, *assignments)
  assert told["backbone"][1] > 5000
  labels = 4 * (told["batch"][1] - told["batch"][3])
  for name, (planned, numbers, held, count) in told.items():
    if name != "batch":
      assert (planned, numbers) == (held, count), name
    else:  # transcripts are shorter than the longest that fit
      assert 0 <= planned - held <= labels < 0.01 * held, name
  if np.prod(axes) > 1:
    assert told["backbone"][0] < 0.6 * 4 * told["backbone"][1]
