"""What a run's metrics say of its time, and profiles of its steps."""

import copy
import json
import os
import re
import shutil
import signal

import corpus
import jax
import jax.numpy as jnp
import pytest
from etils import epath

from hra import hardware, jobs, run
from hra.errors import InputError
from hra.planning import utilisation
from hra.train import loop
from hra.train.profiler import Profiler, read_range

SLOW = 1e6
"""FLOPs a second of a chip that is always busy."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
  """A run on a chip that is known: profiled by a flag, then by a signal."""
  folder = tmp_path_factory.mktemp("watched")
  data = corpus.prepared(folder)
  config = corpus.config(data, corpus.backbone_folder(folder, data))
  config.train.profile_steps = 1
  add, seen = loop.Window.add, []

  def add_and_ask(self, metrics, batch):
    add(self, metrics, batch)
    seen.append(batch)
    if len(seen) == 6:
      os.kill(os.getpid(), signal.SIGUSR1)

  chip = hardware.CHIPS[0]._replace(bf16_flops_per_s=SLOW)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop.Window, "add", add_and_ask)
    patch.setattr(hardware, "of_kind", lambda kind: chip)
    parts = run.assemble(config, folder / "run")
    before = signal.getsignal(signal.SIGUSR1)
    jobs.train(parts, quiet=True, profile=range(2, 4))
    assert signal.getsignal(signal.SIGUSR1) == before
  return parts, folder / "run"


def test_lines_say_where_the_time_went(watched):
  parts, folder = watched
  lines = [
    json.loads(line)
    for line in (folder / "metrics.jsonl").read_text().splitlines()
  ]
  lines = [line for line in lines if "loss" in line]
  loader = jobs.make_loader(parts)
  initial = run.initial_state(parts)
  job = jobs.make_job(parts, loader, initial=initial)
  assert job.ideal is None  # nobody knows what a CPU can do
  batch = next(job.batches(0))
  flops = utilisation.flops(job.step, initial, parts.frozen, batch)
  for line in lines[1:-1]:  # the first compiles; the last is one step
    assert 0 < line["data_seconds"] < line["seconds"]
    least, most = (
      2 * flops / SLOW / (line["seconds"] * part) for part in (1, 0.02)
    )
    assert least < line["mfu"] < most
  told = json.loads((folder / "goodput.json").read_text())
  assert lines[-1]["goodput"] == pytest.approx(told["goodput"], rel=0.5)
  wall = told["seen"] - told["started"]
  assert sum(told["seconds"].values()) == pytest.approx(wall, abs=0.5)
  for doing in ("start", "data", "compile", "step", "evaluation", "save"):
    assert told["seconds"][doing] > 0


def _profiled(folder):
  """The numbers of the steps in each profile, by their time."""
  found = sorted((folder / "profile").glob("*/process-0/**/*.xplane.pb"))
  names = []
  for path in found:
    data = jax.profiler.ProfileData.from_file(str(path))
    events = [
      dict(event.stats)
      for plane in data.planes
      for line in plane.lines
      for event in line.events
      if event.name == "train"
    ]
    names.append(sorted(int(stats["step_num"]) for stats in events))
  return names


def test_a_flag_and_a_signal_each_capture_their_steps(watched):
  _, folder = watched
  assert _profiled(folder) == [[2, 3], [6]]
  assert len(list(folder.rglob("perfetto_trace.json.gz"))) == 2


def test_what_is_computed_again_is_no_flop_of_the_model(watched, tmp_path):
  config = copy.deepcopy(watched[0].config)
  batch = jobs.make_loader(watched[0])[0]
  counts = {}
  for remat in ("none", "full"):
    config.backbone.remat = remat
    made = run.assemble(config, tmp_path / remat)
    loader, initial = jobs.make_loader(made), run.initial_state(made)
    job = jobs.make_job(made, loader, initial=initial)
    counts[remat] = utilisation.flops(job.step, initial, made.frozen, batch)
    traced = job.step.func.trace(
      initial, made.frozen, batch, **job.step.keywords
    )
    counts[f"done {remat}"] = utilisation.cost.flops(traced.jaxpr.jaxpr)
  assert counts["none"] == counts["full"] == counts["done none"]
  assert counts["done full"] > counts["full"]


@pytest.mark.parametrize("text", ["5", "5:5", "7:5", "a:b", "-1:5", "1:2:3"])
def test_ranges_that_are_none_are_refused(text):
  with pytest.raises(InputError, match=re.escape("--profile=100:105")):
    read_range(text)


def test_ranges_are_read():
  assert read_range("") is None
  assert read_range("100:105") == range(100, 105)


def test_a_profile_may_go_to_a_bucket(bucket):
  state = jnp.zeros(3)
  with Profiler(bucket, steps=range(1, 2), next_steps=1) as profiler:
    for position in range(3):
      with profiler.step(position, state):
        state = state + 1
      profiler.done(position + 1, state)
  kept = bucket / "profile" / "steps-1-1" / "process-0" / "plugins" / "profile"
  (folder,) = kept.iterdir()
  names = [path.name for path in folder.iterdir()]
  assert "perfetto_trace.json.gz" in names
  assert any(name.endswith(".xplane.pb") for name in names)


def _steps(profiler, stop, *, asked_at=()):
  state = jnp.zeros(3)
  for position in range(stop):
    if position in asked_at:
      os.kill(os.getpid(), signal.SIGUSR1)
    with profiler.step(position, state):
      state = state + 1
    profiler.done(position + 1, state)


def test_what_is_asked_for_takes_no_range_away_and_is_told(tmp_path, capfd):
  workdir = epath.Path(tmp_path)
  with Profiler(workdir, steps=range(3, 9), next_steps=1) as profiler:
    _steps(profiler, 5, asked_at=(1, 4))
  names = {each.name for each in (workdir / "profile").iterdir()}
  assert names == {"steps-1-1", "steps-3-4"}
  told = capfd.readouterr().err
  assert "SIGUSR1 asks for nothing while 3-8 goes on" in told
  assert "steps-3-4/process-0 (asked for 3-8)" in told
  with Profiler(workdir, steps=range(7, 9), next_steps=1) as profiler:
    _steps(profiler, 1)
  assert "steps 7-8 didn't come" in capfd.readouterr().err


def test_a_profile_that_cannot_be_made_ends_no_training(tmp_path, capfd):
  (tmp_path / "profile").write_text("in the way")
  workdir = epath.Path(tmp_path)
  with Profiler(workdir, steps=range(1, 2), next_steps=1) as profiler:
    _steps(profiler, 3)
  assert "steps 1-1 can't be captured" in capfd.readouterr().err
  (tmp_path / "profile").unlink()
  with Profiler(workdir, steps=range(1, 2), next_steps=1) as profiler:
    _steps(profiler, 1)
    with profiler.step(1, jnp.zeros(3)):
      shutil.rmtree(workdir / "profile")
      (workdir / "profile").write_text("in the way")
    profiler.done(2, jnp.zeros(3))
  assert "steps 1-1 can't be written" in capfd.readouterr().err
  (tmp_path / "profile").unlink()
  with Profiler(workdir, steps=range(1, 2), next_steps=1) as profiler:
    _steps(profiler, 3)
  assert (workdir / "profile" / "steps-1-1").is_dir()
