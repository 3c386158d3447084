"""A signal at any moment: one step at most is lost, and it is told what to do."""

import copy
import json
import os
import signal
import threading
import time
from pathlib import Path

import corpus
import jax
import numpy as np
import pytest

from hra import jobs, run, scoring
from hra.checkpoint import Checkpoints
from hra.data.loader import Loader
from hra.errors import InputError, Interrupted
from hra.evaluate import transcribe
from hra.train.interrupt import Signals, Stop


def _ask(number: int = signal.SIGTERM) -> None:
  os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
  folder = tmp_path_factory.mktemp("material")
  data = corpus.prepared(folder)
  backbone = corpus.backbone_folder(folder, data)
  config = corpus.config(data, backbone, eval_every=4, select="best")
  whole = jobs.train(run.assemble(config, folder / "whole"), quiet=True)
  return config, whole, folder


def _metrics(workdir: Path) -> list[tuple[int, float | None]]:
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  parsed = [json.loads(line) for line in lines]
  return [(line["step"], line.get("dev_wer")) for line in parsed]


def _saved(workdir: Path) -> Checkpoints:
  return Checkpoints(workdir / "checkpoints", access="read")


def _assert_goes_on(material, workdir: Path) -> None:
  config, whole, folder = material
  again = jobs.train(run.assemble(config, workdir), quiet=True)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)),
    whole,
    again,
  )
  assert _metrics(workdir) == _metrics(folder / "whole")
  kept = run.trained_state(run.reopen(workdir))
  assert (kept.progress.best_step_N >= 0).all()


def _saving_rarely(material):
  """What is on the disk then, the signal brought there."""
  config = copy.deepcopy(material[0])
  config.train.save_seconds = 3600.0
  return config


def test_tasks_are_evaluated_before_they_train_on(material):
  """Three tasks, two a step: at own step 4 and at their ends."""
  _, whole, folder = material
  steps = [step for step, wer in _metrics(folder / "whole") if wer is not None]
  assert steps[-1] == 9
  assert all(step > 4 for step in steps)
  assert whole.progress.evaluated_N.tolist() == [6, 6, 6]


def test_while_data_are_awaited(material, tmp_path, monkeypatch):
  config = _saving_rarely(material)
  batches = Loader.batches

  def stuck(self, start=0):
    for index, batch in enumerate(batches(self, start)):
      if index == 3:
        threading.Timer(0.2, _ask).start()
        threading.Event().wait(60)
      yield batch

  monkeypatch.setattr(Loader, "batches", stuck)
  start = time.monotonic()
  with pytest.raises(Interrupted, match="SIGTERM at step 3 of 9"):
    jobs.train(run.assemble(config, tmp_path), quiet=True)
  assert time.monotonic() - start < 50
  monkeypatch.undo()
  assert _saved(tmp_path).latest == 3
  _assert_goes_on(material, tmp_path)


def test_while_a_step_compiles(material, tmp_path, monkeypatch):
  config = _saving_rarely(material)
  jit_step = jobs.jit_step

  def slow(*args):
    step = jit_step(*args)

    def compiled(*inputs):
      _ask()
      return step(*inputs)

    return compiled

  monkeypatch.setattr(jobs, "jit_step", slow)
  with pytest.raises(Interrupted, match="step 1 of 9"):
    jobs.train(run.assemble(config, tmp_path), quiet=True)
  monkeypatch.undo()
  assert _saved(tmp_path).latest == 1
  _assert_goes_on(material, tmp_path)


@pytest.mark.parametrize("last", [False, True])
def test_while_the_dev_split_is_evaluated(
  material, tmp_path, monkeypatch, last
):
  """It stops before the next batch; what was left out is evaluated later."""
  config, _, folder = material
  whole = [step for step, wer in _metrics(folder / "whole") if wer is not None]
  at = whole[-1] if last else whole[0]
  heard = transcribe.heard
  calls = []
  before = _calls_before(material, tmp_path, monkeypatch, at)

  def asked(*args, **options):
    calls.append(at)
    if len(calls) == before + 1:
      _ask()
    return heard(*args, **options)

  monkeypatch.setattr(transcribe, "heard", asked)
  with pytest.raises(Interrupted, match=f"step {at} of 9"):
    jobs.train(run.assemble(config, tmp_path), quiet=True)
  assert len(calls) == before + 1
  monkeypatch.undo()
  assert all(step < at for step, wer in _metrics(tmp_path) if wer is not None)
  _assert_goes_on(material, tmp_path)


def _calls_before(material, tmp_path, monkeypatch, at: int) -> int:
  """Batches of dev evaluations in joint steps before `at`."""
  config, _, _ = material
  heard = transcribe.heard
  figures = scoring.DevSplit.figures
  calls = []

  def counted(*args, **options):
    calls.append(None)
    return heard(*args, **options)

  def until(self, trained, tasks, heed):
    if int(trained.step) == at:
      raise InputError("here", expected="", got="")
    return figures(self, trained, tasks, heed)

  with monkeypatch.context() as patch:
    patch.setattr(transcribe, "heard", counted)
    patch.setattr(scoring.DevSplit, "figures", until)
    with pytest.raises(InputError):
      jobs.train(run.assemble(config, tmp_path / "counted"), quiet=True)
  return len(calls)


@pytest.mark.parametrize("at", [5, 9])
def test_while_a_checkpoint_is_written(material, tmp_path, monkeypatch, at):
  config, _, _ = material
  wait = Checkpoints.wait

  def asked(self):
    if self._saving == at:
      _ask(signal.SIGINT)
    wait(self)

  monkeypatch.setattr(Checkpoints, "wait", asked)
  with pytest.raises(Interrupted, match=r"SIGINT at step \d of 9; saved"):
    jobs.train(run.assemble(config, tmp_path), quiet=True)
  monkeypatch.undo()
  assert _saved(tmp_path).latest in (at, at + 1)
  _assert_goes_on(material, tmp_path)


def test_a_second_signal_is_not_caught():
  with Signals() as signals:
    _ask(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
      _ask(signal.SIGINT)
    assert signals.first == signal.SIGTERM
    with pytest.raises(Stop):
      signals.heed()


def test_a_signal_breaks_in_only_where_it_may():
  with Signals() as signals:
    _ask()
    with pytest.raises(Stop), signals.interruptible():
      raise AssertionError("a signal from before was not heeded")
  reached = []
  with Signals() as signals:
    with pytest.raises(Stop), signals.interruptible():
      reached.extend([_ask(), "beyond"])
    assert not reached


def test_handlers_are_put_back():
  before = [signal.getsignal(number) for number in (2, 15)]
  with Signals():
    assert [signal.getsignal(number) for number in (2, 15)] != before
  assert [signal.getsignal(number) for number in (2, 15)] == before
