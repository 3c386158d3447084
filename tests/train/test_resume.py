"""Interrupted and run again, training ends with the same bits."""

import copy
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import corpus
import jax
import numpy as np
import pytest

from hra import claim, jobs, run, run_data, scoring
from hra.config import MultistyleConfig
from hra.config_tree import to_dict
from hra.errors import InputError, Interrupted
from hra.train import loop
from hra.train.interrupt import Signals
from hra.train.optimizer import updates_done

TESTS = Path(__file__).parent.parent


def _assert_same_bits(first, second):
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)),
    first,
    second,
  )


def _metrics(workdir: Path) -> list[tuple[int, float]]:
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  parsed = [json.loads(line) for line in lines]
  return [(line["step"], line["loss"]) for line in parsed if "loss" in line]


def test_rows_moved_and_every_task_had_its_steps(material):
  _, whole, _ = material
  counts = updates_done(whole.rows_optimizer)
  assert counts.tolist() == [6, 6, 6]
  assert int(whole.step) == 9  # 18 own steps, two tasks at a time


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_next_call_goes_on(
  material, tmp_path, monkeypatch, number
):
  config, whole, folder = material
  add = loop.Window.add
  seen = []

  def add_and_signal(self, metrics, batch):
    add(self, metrics, batch)
    seen.append(batch)
    if len(seen) == 4:
      os.kill(os.getpid(), number)

  monkeypatch.setattr(loop.Window, "add", add_and_signal)
  with pytest.raises(Interrupted, match="step 4 of 9"):
    jobs.train(run.assemble(config, tmp_path / "run"), quiet=True)
  again = jobs.train(run.assemble(config, tmp_path / "run"), quiet=True)
  assert len(seen) == 9  # nothing was done twice
  _assert_same_bits(whole, again)
  assert [step for step, _ in _metrics(tmp_path / "run")] == [
    step for step, _ in _metrics(folder / "whole")
  ]


def test_a_killed_process_goes_on_from_its_last_checkpoint(material, tmp_path):
  config, whole, _ = material
  (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
  script = (
    "import json, sys; from hra import config, config_tree, jobs, run;"
    "c = config_tree.from_dict(config.Config, json.load(open(sys.argv[1])));"
    "jobs.train(run.assemble(c, sys.argv[2]), quiet=True)"
  )
  workdir = tmp_path / "run"
  process = subprocess.Popen(
    [sys.executable, "-c", script, tmp_path / "config.json", workdir]
  )
  deadline = time.monotonic() + 120
  while not list(workdir.glob("checkpoints/[1-9]*/_CHECKPOINT_METADATA")):
    assert process.poll() is None
    assert time.monotonic() < deadline
    time.sleep(0.01)
  process.kill()
  process.wait()
  again = jobs.train(run.assemble(config, workdir), quiet=True)
  _assert_same_bits(whole, again)
  steps = [step for step, _ in _metrics(workdir)]
  assert steps == sorted(set(steps))


def test_a_finished_run_trains_nothing_more(material):
  config, whole, folder = material
  before = (folder / "whole" / "metrics.jsonl").read_text()
  again = jobs.train(run.assemble(config, folder / "whole"), quiet=True)
  _assert_same_bits(whole, again)
  assert (folder / "whole" / "metrics.jsonl").read_text() == before


def test_a_run_goes_on_with_the_buckets_that_it_began_with(
  material, tmp_path, monkeypatch
):
  """Who takes no part may leave the data, which would cut others."""
  config = copy.deepcopy(material[0])
  config.data.bucket_seconds, config.data.buckets = (), 1
  config.train.steps = 1
  parts = run.assemble(config, tmp_path / "run")
  jobs.train(parts, quiet=True)
  monkeypatch.setattr(
    run_data, "bucket_bounds", lambda samples, count: (320_000, 640_000)
  )
  assert run.assemble(config, tmp_path / "run").bounds == parts.bounds
  assert run.assemble(config, tmp_path / "other").bounds == (320_000, 640_000)


def test_a_run_is_opened_where_other_devices_are(material, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(material[2] / "whole", folder)
  described = json.loads((folder / "config.json").read_text())
  described["config"]["mesh"]["fsdp"] = 4
  (folder / "config.json").write_text(json.dumps(described))
  parts = run.reopen(folder)
  assert parts.mesh.size == 1
  _assert_same_bits(material[1], run.trained_state(parts))


def test_a_run_without_its_last_checkpoint_trains_to_its_end_again(
  material, tmp_path, monkeypatch
):
  config, whole, _ = material
  config = copy.deepcopy(config)
  config.train.keep = 2
  heed = Signals.heed

  def stop_once(self):
    monkeypatch.setattr(Signals, "heed", heed)
    os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(Signals, "heed", stop_once)
  with pytest.raises(Interrupted):
    jobs.train(run.assemble(config, tmp_path), quiet=True)
  parts = run.assemble(config, tmp_path)
  jobs.finish(parts, jobs.train(parts, quiet=True))
  assert jobs.is_finished(parts.workdir)
  steps = sorted(int(each.name) for each in tmp_path.glob("checkpoints/[0-9]*"))
  assert len(steps) == 2
  shutil.rmtree(tmp_path / "checkpoints" / str(steps[1]))
  assert not jobs.is_finished(parts.workdir)
  again = jobs.train(parts, quiet=True)
  _assert_same_bits(whole, again)
  assert not jobs.is_finished(parts.workdir)  # what is exported is older
  jobs.finish(parts, again)
  assert jobs.is_finished(parts.workdir)


def test_a_folder_of_another_run_is_refused(material):
  config, _, folder = material
  other = corpus.config(Path(config.data.path), Path(config.backbone_path))
  other.adapter.width = 4
  with pytest.raises(InputError, match=r"config.adapter.width: expected 8"):
    run.assemble(other, folder / "whole")


def test_other_data_at_the_same_place_are_refused(material, tmp_path):
  config, _, _ = material
  config = copy.deepcopy(config)
  data = tmp_path / "prepared"
  shutil.copytree(config.data.path, data)
  config.data.path = str(data)
  config.train.steps = 1
  jobs.train(run.assemble(config, tmp_path / "run"), quiet=True)
  run.assemble(config, tmp_path / "run")
  for split in ("train", "dev"):
    index = data / f"index-{split}.json"
    told = index.read_text()
    changed = json.loads(told)
    changed["texts"][0] = "other"
    index.write_text(json.dumps(changed))
    with pytest.raises(InputError, match="other recordings or transcripts"):
      run.assemble(config, tmp_path / "run")
    index.write_text(told)


def test_a_run_without_its_checkpoints_is_trained_again(material, tmp_path):
  config, whole, _ = material
  parts = run.assemble(config, tmp_path)
  jobs.finish(parts, jobs.train(parts, quiet=True))
  shutil.rmtree(tmp_path / "checkpoints")
  assert not jobs.is_finished(tmp_path)
  again = jobs.train(run.assemble(config, tmp_path), quiet=True)
  _assert_same_bits(again.rows, whole.rows)


def test_a_run_that_is_older_than_a_field_goes_on(material, tmp_path):
  config, _, _ = material
  run.assemble(config, tmp_path)
  path = tmp_path / "config.json"
  described = json.loads(path.read_text())
  del described["config"]["augment"]["fill"]
  path.write_text(json.dumps(described))
  assert run.assemble(config, tmp_path).config.augment.fill == "zero"


def test_a_run_whose_memory_was_another_goes_on(material, tmp_path):
  config, _, _ = material
  run.assemble(config, tmp_path)
  path = tmp_path / "config.json"
  described = json.loads(path.read_text())
  decoder = described["config"]["backbone"]["decoder"]
  decoder["chunk"] *= 2
  path.write_text(json.dumps(described))
  told = run.reopen(tmp_path).config.backbone.decoder
  assert told.chunk == decoder["chunk"]
  (tmp_path / "metrics.jsonl").write_text("{}\n")  # it has begun
  again = run.assemble(config, tmp_path).config.backbone.decoder
  assert again.chunk == config.backbone.decoder.chunk


@pytest.mark.parametrize("part", [0.0, 0.4])
def test_a_run_whose_noise_was_said_otherwise_goes_on(material, tmp_path, part):
  """SpecAugment came on top of noise then, and does so when it goes on."""
  config, _, _ = material
  run.assemble(config, tmp_path)
  path = tmp_path / "config.json"
  described = json.loads(path.read_text())
  data = described["config"]["data"]
  del data["multistyle"]
  data |= {"noise_probability": part, "snr_low": 1.0, "snr_high": 2.0}
  path.write_text(json.dumps(described))
  style = MultistyleConfig(snr_low=1.0, snr_high=2.0)
  if part:
    style = dataclasses.replace(style, part=part, noise="coloured", mix="both")
  assert run.reopen(tmp_path).config.data.multistyle == style
  data["noise_probability"] = "often"
  with pytest.raises(InputError, match=r"multistyle\.part: expected float"):
    claim.stored_config(described["config"], path="config")


def test_what_only_reports_may_change(material):
  config, _, folder = material
  other = corpus.config(Path(config.data.path), Path(config.backbone_path))
  other.train.log_every = 5
  other.evaluate.bootstrap = 100
  assert run.assemble(other, folder / "whole").config.train.log_every == 5


def test_evaluate_and_export(material):
  import hra
  from hra.data.dataset import open_split

  config, whole, folder = material
  parts = run.assemble(config, folder / "whole")
  store = hra.Store(jobs.finish(parts, whole))
  results = scoring.evaluate(parts, whole, split="test")
  assert set(results["tasks"]) == set(corpus.SPEAKERS)
  assert results["overall"]["utterances"] == 9
  assert results["parameters"]["shared"] == 16 * 8 + 2 * 8 + 8 * 16 + 16
  assert results["parameters"]["per_task"] == 8 * 16 + 16
  assert json.loads((parts.workdir / "results.json").read_text()) == results
  assert set(store) == set(corpus.SPEAKERS)
  split = open_split(config.data.path, "test")
  waves = [split[index].wave_S for index in range(len(split))]
  texts = hra.load_backbone(config.backbone_path).transcribe(
    waves, submodels=[store[task] for task in split.tasks], guard=False
  )
  lines = (parts.workdir / "transcripts.jsonl").read_text().splitlines()
  told = {line["id"]: line["hypothesis"] for line in map(json.loads, lines)}
  assert texts == [told[name] for name in split.ids]
