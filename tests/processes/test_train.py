"""`hra train` as two processes: stopped, killed and refused, and as if alone."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import corpus
import jax
import numpy as np
import pytest
import several

from hra import run
from hra.backbone import store
from hra.data.prepare import prepare

EXPERIMENT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import corpus

def get_config():
  config = corpus.config(
    Path({data!r}), {backbone!r}, eval_every=8, select="best"
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
  _write_experiment(folder, data, str(corpus.backbone_folder(folder, data)))
  assert _codes(_train(folder, "whole", count=1, devices=2)) == [0]
  return folder


def _write_experiment(folder: Path, data: Path, backbone: str) -> None:
  tests = str(Path(corpus.__file__).parent)
  (folder / "experiment.py").write_text(
    EXPERIMENT.format(tests=tests, data=str(data), backbone=backbone)
  )


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

  jobs = _start(folder, "two", HAPPENS=f"1:3:{signal.SIGKILL}", PAUSE="0.15")
  assert jobs[1].wait(timeout=several.SECONDS) == -signal.SIGKILL
  start = time.monotonic()
  ends = several.ended(jobs)
  assert time.monotonic() - start < 120
  assert ends[0].code not in (0, 2, 75), ends[0]

  ends = _train(folder, "two")
  assert _codes(ends) == [0, 0], ends
  assert "wrote" in ends[0].out
  assert ends[1].out == ""
  _assert_same_bits(folder / "two", folder / "whole")


OTHERS = {
  "one": ({"count": 1}, ()),
  "four": (
    {"devices": 2},
    ("data=1", "fsdp=2", "tensor=2", "shard_rows=always"),
  ),
}
"""Devices and a mesh, other than those that a run began on."""


@pytest.mark.slow
def test_others_go_on_as_if_it_were_theirs(tmp_path, float64):
  """In float64: of noise that it never heard, the bundled backbone makes 0.4 of a
  logit from 2e-6 of a feature, and so 5e-4 of a loss from float32's rounding."""
  tiny = store.folder_of("tiny")
  prepare(
    corpus.write_manifests(tmp_path / "raw"), tmp_path / "data", tokenizer=tiny
  )
  _write_experiment(tmp_path, tmp_path / "data", "tiny")
  flags = [
    f"--config.backbone.{name}=float64" for name in ("dtype", "param_dtype")
  ]
  wide = {"JAX_ENABLE_X64": "1"}
  stop = {"HAPPENS": f"1:6:{signal.SIGTERM}", "PAUSE": "0.15"}
  ends = _train(tmp_path, "whole", *flags, **wide)
  ends += _train(tmp_path, "stopped", *flags, **stop, **wide)
  assert _codes(ends) == [0, 0, 75, 75], ends
  theirs = _losses(tmp_path / "whole")
  begun = len(_losses(tmp_path / "stopped"))
  for name, (how, axes) in OTHERS.items():
    shutil.copytree(tmp_path / "stopped", tmp_path / name)
    mesh = [f"--config.mesh.{axis}" for axis in axes]
    ends = _train(tmp_path, name, *flags, *mesh, **how, **wide)
    assert set(_codes(ends)) == {0}, ends
    ours = _losses(tmp_path / name)
    assert ours[:begun] == theirs[:begun]
    assert ours[begun:] != theirs[begun:]  # they do compute otherwise
    _assert_close(ours, theirs)
    _assert_close_rows(tmp_path / name, tmp_path / "whole")


def _assert_close(ours: list[tuple], theirs: list[tuple]) -> None:
  for one, other in zip(ours, theirs, strict=True):
    assert [each is None for each in one] == [each is None for each in other]
    told = [each for each in one if each is not None]
    assert told == pytest.approx(
      [each for each in other if each is not None], rel=1e-5
    )


def _assert_close_rows(workdir: Path, whole: Path) -> None:
  ours, theirs = (
    run.trained_state(run.reopen(each)) for each in (workdir, whole)
  )
  kept = [
    (each.rows, each.progress.best, each.shared) for each in (ours, theirs)
  ]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), *kept
  )


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
  ends = several.ended(_start(folder, "other", verb="quickstart"))
  assert _codes(ends) == [2, 2]
  assert all("one of several" in each.err for each in ends)


@pytest.mark.slow
def test_two_processes_evaluate_and_pretrain_as_one_does(folder):
  before = (folder / "whole" / "results.json").read_text()
  ends = several.ended(_start(folder, "whole", "--split=dev", verb="evaluate"))
  assert _codes(ends) == [0, 0], ends
  assert "anna" in ends[0].out
  assert (folder / "whole" / "results.json").read_text() == before
  flags = [
    f"--config.{field}"
    for field in (
      "train.mode=pretrain",
      "train.start=backbone",
      "train.keep_best=1",
      "adapter.family=none",
      "adapter.heads=personal",
      "adapter.width=128",
      "data.grouping=pooled",
      "mesh.data=1",
      "mesh.fsdp=2",
    )
  ]
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
  rng = np.random.default_rng(0)
  names = ["killed"]
  for kill in range(10):
    if (folder / names[-1] / "finished.json").exists():
      names.append(f"killed{kill}")
    workdir, killed = folder / names[-1], kill % 2
    jobs = _start(folder, workdir.name, PAUSE="0.3", HRA_JOIN_SECONDS="20")
    if kill % 4 > 1:
      time.sleep(rng.uniform(0, 15))
    else:
      _wait_for_steps(workdir, jobs)
      time.sleep(rng.uniform(0, 10))
    jobs[killed].kill()
    start = time.monotonic()
    ends = several.ended(jobs, seconds=120)
    saved = [each.name for each in (workdir / "checkpoints").glob("*")]
    print(
      kill, names[-1], _codes(ends), f"{time.monotonic() - start:.0f} s", saved
    )
    assert ends[killed].code in (0, -signal.SIGKILL)
    assert ends[1 - killed].code not in (2, 75), ends
  for name in names:
    ends = _train(folder, name)
    assert _codes(ends) == [0, 0], ends
    assert not list((folder / name / "checkpoints").glob("*tmp*"))
    _assert_same_bits(folder / name, folder / "whole")


def _wait_for_steps(workdir: Path, jobs: list[subprocess.Popen]) -> None:
  """Until a job writes another line of metrics, or ends as it has none."""
  metrics = workdir / "metrics.jsonl"
  size = None
  until = time.monotonic() + several.SECONDS
  while time.monotonic() < until and all(job.poll() is None for job in jobs):
    before, size = size, metrics.stat().st_size if metrics.exists() else 0
    # On opening, a job cuts off what no checkpoint has.
    if before is not None and size > before:
      return
    time.sleep(0.05)
