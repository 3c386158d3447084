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


@pytest.mark.slow
@pytest.mark.parametrize(("what", "code"), [("refuse", 2), ("crash", 1)])
@pytest.mark.parametrize("who", [0, 1])
def test_what_ends_one_ends_all_and_is_told(folder, what, code, who):
  ends = _train(folder, f"{what}{who}", HAPPENS=f"{who}:3:{what}")
  assert _codes(ends) == [code, code], ends
  said = "expected sound, got silence" if what == "refuse" else "by nobody"
  assert said in ends[who].err.splitlines()[-1]
  assert (
    ends[1 - who]
    .err.splitlines()[-1]
    .startswith(f"hra: stopped, as process {who} of 2 has failed: ")
  )


@pytest.mark.slow
def test_bad_input_is_told_before_anything_waits(folder):
  ends = _train(folder, "four", count=4)
  assert _codes(ends) == [2] * 4
  assert "config.data.tasks_per_batch" in ends[0].err + ends[1].err
  ends = _train(folder, "mesh", "--config.mesh.data=3")
  assert _codes(ends) == [2, 2]
  assert all("multiply to 2 devices" in each.err for each in ends)
  ends = _train(folder, "whole", "--config.seed=5")
  assert _codes(ends) == [2, 2]
  assert any("another run's" in each.err for each in ends)
  ends = several.ended(_start(folder, "whole", verb="transcribe"))
  assert _codes(ends) == [2, 2]
  assert all("one of several" in each.err for each in ends)


@pytest.mark.slow
def test_two_processes_evaluate_and_pretrain_as_one_does(folder):
  before = (folder / "whole" / "results.json").read_text()
  ends = several.ended(_start(folder, "whole", "--split=dev", verb="evaluate"))
  assert _codes(ends) == [0, 0], ends
  assert "anna" in ends[0].out
  assert (folder / "whole" / "results.json").read_text() == before
  flags = ("--config.train.mode=pretrain", "--config.mesh.fsdp=2")
  flags += ("--config.mesh.data=1", "--config.train.start=backbone")
  one = _train(folder, "one_pretrained", *flags, count=1, devices=2)
  two = _train(folder, "two_pretrained", *flags)
  assert _codes(one + two) == [0, 0, 0], one + two
  same = [
    (folder / name / "backbone" / "model.safetensors").read_bytes()
    for name in ("one_pretrained", "two_pretrained")
  ]
  assert same[0] == same[1]


@pytest.mark.slow
def test_two_processes_train_a_language_model(folder):
  flags = ("--config.train.mode=language_model", "--config.train.select=last")
  ends = _train(folder, "words", *flags)
  assert _codes(ends) == [0, 0], ends
  assert (folder / "words" / "lm" / "config.json").exists()


@pytest.mark.slow
def test_ten_kills(folder):
  """Of either process at any moment: imports, joining, steps, saves, exports."""
  start = time.monotonic()
  assert _codes(_train(folder, "never", PAUSE="0.3")) == [0, 0]
  whole = time.monotonic() - start
  rng = np.random.default_rng(0)
  for kill in range(10):
    jobs = _start(folder, "killed", PAUSE="0.3")
    time.sleep(rng.uniform(0.2, 1) * whole)
    jobs[kill % 2].kill()
    start = time.monotonic()
    ends = several.ended(jobs, seconds=120)
    assert time.monotonic() - start < 120
    assert ends[kill % 2].code in (0, -signal.SIGKILL)
    assert ends[1 - kill % 2].code not in (2, 75), ends
  assert _codes(_train(folder, "killed")) == [0, 0]
  assert not list((folder / "killed" / "checkpoints").glob("*tmp*"))
  _assert_same_bits(folder / "killed", folder / "whole")
