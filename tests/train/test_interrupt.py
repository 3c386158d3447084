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

from hra import jobs, run
from hra.checkpoint import Checkpoints
from hra.data.loader import Loader
from hra.errors import Interrupted
from hra.evaluate import transcribe
from hra.train.interrupt import Signals, Stop


def _ask(number: int = signal.SIGTERM) -> None:
  os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
  folder = tmp_path_factory.mktemp("material")
  data = corpus.prepared(folder)
  backbone = corpus.backbone_folder(folder, data)
  config = corpus.config(data, backbone, eval_every=4)
  whole = jobs.train(run.assemble(config, folder / "whole"), quiet=True)
  return config, whole, folder


def _metrics(workdir: Path) -> list[tuple[int, float | None]]:
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  parsed = [json.loads(line) for line in lines]
  return [(line["step"], line.get("dev_wer")) for line in parsed]


def _saved(workdir: Path) -> Checkpoints:
  return Checkpoints(workdir / "checkpoints", access="read")


def _best(workdir: Path) -> int | None:
  return _saved(workdir).best


def _assert_goes_on(material, workdir: Path) -> None:
  config, whole, folder = material
  again = jobs.train(run.assemble(config, workdir), quiet=True)
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)),
    whole,
    again,
  )
  assert _metrics(workdir) == _metrics(folder / "whole")
  assert _best(workdir) == _best(folder / "whole") is not None


def _saving_rarely(material):
  """What is on the disk then, the signal brought there."""
  config = copy.deepcopy(material[0])
  config.train.save_seconds = 3600.0
  return config


def test_each_evaluation_is_a_checkpoint_and_the_best_stays(material):
  _, _, folder = material
  metrics = _metrics(folder / "whole")
  assert [step for step, _ in metrics] == [2, 4, 4, 6, 8, 8, 9, 9]
  wers = [(wer, step) for step, wer in metrics if wer is not None]
  assert _best(folder / "whole") == min(wers)[1]


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


@pytest.mark.parametrize("at", [4, 9])
def test_while_the_dev_split_is_evaluated(material, tmp_path, monkeypatch, at):
  """It stops before the next batch; what was left out is evaluated later."""
  config, _, _ = material
  best_paths = transcribe.best_paths
  calls = []
  before = {4: 0, 9: 4}[at]  # two batches an evaluation

  def asked(*args):
    calls.append(at)
    if len(calls) == before + 1:
      _ask()
    return best_paths(*args)

  monkeypatch.setattr(transcribe, "best_paths", asked)
  with pytest.raises(Interrupted, match=f"step {at} of 9"):
    jobs.train(run.assemble(config, tmp_path), quiet=True)
  assert len(calls) == before + 1
  monkeypatch.undo()
  assert (at, None) in _metrics(tmp_path)
  assert all(step < at for step, wer in _metrics(tmp_path) if wer is not None)
  _assert_goes_on(material, tmp_path)


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


def test_the_best_is_what_is_exported(material):
  config, whole, folder = material
  best = _best(folder / "whole")
  config.train.select = "best"
  parts = run.assemble(config, folder / "whole")
  chosen = jobs.train(parts, quiet=True)
  assert int(chosen.step) == best
  # `hra evaluate` follows: it reads the choice from the run's folder.
  again = run.reopen(folder / "whole")
  assert int(run.trained_state(again).step) == best
  config.train.select = "last"
  parts = run.assemble(config, folder / "whole")
  assert int(jobs.train(parts, quiet=True).step) == int(whole.step) == 9
  assert int(run.trained_state(run.reopen(folder / "whole")).step) == 9
