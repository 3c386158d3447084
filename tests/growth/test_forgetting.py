"""A task leaves a run whole, and nothing of it stays but a hash."""

import dataclasses
import itertools
import json
import os
import shutil
from pathlib import Path

import corpus
import jax
import newcomers
import numpy as np
import pytest

from hra import claim, jobs, members, run, scoring, submodels
from hra.checkpoint import Checkpoints, abstract
from hra.data.prepare import prepare
from hra.errors import InputError
from hra.growth import forgetting, retraining
from hra.growth.enrolment import enroll
from hra.growth.forgetting import forget
from hra.growth.options import Options

GONE, LEFT = "bert/b", ("anna", "cleo")
SPACES = pytest.mark.parametrize("space", ["table", "embedding", "offset"])


class Killed(Exception):
  """Stands for a process that ends here."""


def _states(workdir):
  """Every checkpoint that is kept, by step."""
  parts = run.reopen(workdir)
  kept = Checkpoints(workdir / "checkpoints", access="read")
  shapes = abstract(run.initial_state(parts))
  states = {step: kept.restore(shapes, step=step) for step in kept.steps}
  kept.close()
  return states


def _enroll(workdir, folder, *names):
  manifest = newcomers.write(folder, names=names)
  options = Options(settings=("train.steps=1",))
  return enroll(workdir, str(manifest), options, quiet=True)


@SPACES
def test_that_no_file_of_the_run_names_it_any_more(copied, space):
  workdir = copied(space)
  assert any(b"bert" in data for data in newcomers.files(workdir).values())
  assert forget(workdir, GONE).shared
  for name, data in newcomers.files(workdir).items():
    assert b"bert" not in data, name
    assert "bert" not in name
  assert members.tasks_of(workdir) == list(LEFT)
  assert members.forgotten(workdir) == {members.task_hash(GONE)}


@SPACES
def test_that_the_others_keep_every_bit(copied, space):
  workdir = copied(space)
  states, before = _states(workdir), newcomers.files(workdir)
  results = json.loads(before["results.json"])
  forget(workdir, GONE)
  after = newcomers.files(workdir)
  for task in LEFT:
    name = f"submodels/{submodels.file_name(task)}"
    assert after[name] == before[name]
  smaller = _states(workdir)
  assert len(smaller) == 2
  assert smaller.keys() == states.keys()
  for step, state in states.items():
    (same, own), (same_now, own_now) = map(_parted, (state, smaller[step]))
    for ours, theirs in zip(
      jax.tree.leaves(same_now), jax.tree.leaves(same), strict=True
    ):
      np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(
      jax.tree.leaves(own_now), jax.tree.leaves(own), strict=True
    ):
      np.testing.assert_array_equal(ours, np.asarray(theirs)[[0, 2]])
  left = json.loads(after["results.json"])
  del results["tasks"][GONE]
  assert left["tasks"] == results["tasks"]


def _parted(state):
  """(what tasks share, what they own)."""
  return (state.step, state.shared, state.shared_optimizer), (
    state.rows,
    state.rows_optimizer,
    state.skipped_N,
    state.progress,
  )


def test_that_evaluating_again_gives_the_same_figures(copied):
  workdir = copied("table")
  forget(workdir, GONE)
  kept = json.loads((workdir / "results.json").read_text())
  parts = run.reopen(workdir)
  again = scoring.evaluate(parts, run.trained_state(parts), split="test")
  assert json.loads(json.dumps(again)) == kept


def test_that_results_of_which_transcripts_are_missing_go(copied):
  workdir = copied("table")
  (workdir / "transcripts.jsonl").unlink()
  assert forget(workdir, GONE).again
  assert not (workdir / "results.json").exists()
  assert not (workdir / "report.html").exists()


def test_that_clips_of_nobody_else_stay(copied):
  workdir = copied("table")
  (workdir / "audio" / "99.wav").write_bytes(b"left by an evaluation before")
  forget(workdir, GONE)
  lines = (workdir / "transcripts.jsonl").read_text().splitlines()
  named = {json.loads(line)["audio"] for line in lines} - {None}
  found = {f"audio/{path.name}" for path in (workdir / "audio").iterdir()}
  assert found == named


def test_that_the_run_is_still_finished_for_the_same_configuration(copied):
  workdir = copied("table")
  config = run.reopen(workdir).config
  named = dataclasses.replace(
    config, data=dataclasses.replace(config.data, tasks=(*LEFT, GONE))
  )
  told = json.loads((workdir / "config.json").read_text())
  told["config"]["data"]["tasks"] = [*LEFT, GONE]
  (workdir / "config.json").write_text(json.dumps(told))
  forget(workdir, GONE)
  assert "bert" not in (workdir / "config.json").read_text()
  run.reopen(workdir)  # the first since knows the others' data again
  before = newcomers.files(workdir)
  trained = jobs.train(run.assemble(named, workdir), quiet=True)
  assert len(trained.skipped_N) == len(LEFT)
  assert newcomers.files(workdir) == before


def test_that_others_may_join_and_the_name_is_free_again(copied, tmp_path):
  workdir = copied("table")
  forget(workdir, GONE)
  _enroll(workdir, tmp_path / "new", GONE)
  assert GONE in submodels.Store(workdir / "submodels")
  assert forget(workdir, GONE).folder.parent.name == claim.ENROLLED
  assert GONE not in submodels.Store(workdir / "submodels")


def test_that_who_joined_alone_leaves_nothing(copied, tmp_path):
  workdir = copied("table")
  submodels.Store(workdir / "submodels").entries()  # those of the copy
  before = newcomers.files(workdir)
  _enroll(workdir, tmp_path / "new", "zoe")
  assert not forget(workdir, "zoe").shared
  assert newcomers.files(workdir) == before
  with pytest.raises(InputError, match="forgotten already") as refused:
    forget(workdir, "zoe")
  assert "did you mean" not in str(refused.value)


def test_that_who_joined_with_others_leaves_them(copied, tmp_path):
  workdir = copied("table")
  folder = _enroll(workdir, tmp_path / "new", "zoe", "yan").folder
  (state,) = _states(folder).values()
  before = newcomers.files(workdir)
  forget(workdir, "zoe")
  after = newcomers.files(workdir)
  assert "submodels/zoe.safetensors" not in after
  assert (
    after["submodels/yan.safetensors"] == before["submodels/yan.safetensors"]
  )
  assert members.tasks_of(folder) == ["yan"]
  assert forget(workdir, "zoe").before
  (left,) = _states(folder).values()
  for ours, theirs in zip(
    jax.tree.leaves(left.rows), jax.tree.leaves(state.rows), strict=True
  ):
    np.testing.assert_array_equal(ours[0], theirs[0])
  forget(workdir, "yan")
  assert not folder.exists()


def test_that_no_enrolment_says_any_more_that_it_started_from_it(
  copied, tmp_path
):
  workdir = copied("table")
  options = Options(init="nearest", settings=("train.steps=0",))
  manifest = newcomers.write(tmp_path / "new")
  start = enroll(workdir, str(manifest), options, quiet=True).starts["zoe"]
  assert forget(workdir, start.task).begun_from == ("zoe",)
  told = json.loads((workdir / "enrolled/zoe/enrolment.json").read_text())
  assert told["starts"]["zoe"]["task"] is None


def test_that_who_began_from_a_newcomer_is_named(copied, tmp_path):
  workdir = copied("table")
  _enroll(workdir, tmp_path / "new", "zoe")  # from the mean of the run's own
  path = workdir / "enrolled/zoe/enrolment.json"
  told = json.loads(path.read_text())
  twin = {"init": "nearest", "task": "zoe", "loss": 1.0, "of": 4}
  (workdir / "enrolled/twin").mkdir()
  (workdir / "enrolled/twin/enrolment.json").write_text(
    json.dumps({**told, "starts": {"twin": twin}})
  )
  assert forget(workdir, "zoe").begun_from == ("twin",)


def test_that_the_recordings_may_have_gone_before(copied, material, tmp_path):
  workdir = copied("table")
  path = workdir / "config.json"
  described = json.loads(path.read_text())
  described["config"]["data"]["path"] = str(tmp_path / "nowhere")
  path.write_text(json.dumps(described))
  forget(workdir, GONE)
  assert members.tasks_of(workdir) == list(LEFT)
  described = json.loads(path.read_text())
  described["config"]["data"]["path"] = str(material[1])
  path.write_text(json.dumps(described))
  (state,) = {len(each.skipped_N) for each in _states(workdir).values()}
  assert state == len(LEFT)


def test_that_nothing_half_written_is_left(copied):
  workdir = copied("table")
  store = workdir / "submodels"
  file = store / submodels.file_name(GONE)
  halves = [
    store / f".{file.name}.4711",
    workdir / ".transcripts.jsonl.12",
  ]
  for half in halves:
    half.write_bytes(file.read_bytes())
  forget(workdir, GONE)
  assert not any(half.exists() for half in halves)


@pytest.mark.parametrize("place", range(len(forgetting._STEPS)))
def test_that_a_kill_before_any_step_is_made_good(
  half, tmp_path, monkeypatch, place
):
  """Commands refuse the run in between, and say what to do."""
  workdir, whole = tmp_path / "run", half[1]
  shutil.copytree(half[0], workdir)

  def dies(journal):
    raise Killed

  steps = (*forgetting._STEPS[:place], dies, *forgetting._STEPS[place:])
  monkeypatch.setattr(forgetting, "_STEPS", steps)
  with pytest.raises(Killed):
    forget(workdir, GONE)
  monkeypatch.undo()
  command = rf"hra forget --workdir={workdir} --task=bert/b"
  for refused in (run.reopen, run.backbone_of):
    with pytest.raises(InputError, match=command):
      refused(workdir)
  with pytest.raises(InputError, match="first finish that: --task=bert/b"):
    forget(workdir, "anna")
  forget(workdir, GONE)
  assert newcomers.files(workdir) == whole


def test_that_a_kill_in_any_change_of_a_file_is_made_good(
  half, tmp_path, monkeypatch
):
  """At every removal and renaming that the system is asked for."""
  whole = half[1]
  for moment in itertools.count(1):
    workdir = tmp_path / str(moment) / "run"  # the report has its name
    shutil.copytree(half[0], workdir)
    calls = itertools.count(1)
    with monkeypatch.context() as patch:
      for name in ("unlink", "remove", "rename", "replace", "rmdir"):
        patch.setattr(os, name, _dying(getattr(os, name), calls, moment))
      try:
        forget(workdir, GONE)
      except Killed:
        ended = False
      else:
        ended = True
    if (workdir / claim.JOURNAL).exists():
      forget(workdir, GONE)
    for path in workdir.rglob(f".*.{os.getpid()}"):  # a dead process's own
      path.unlink()
    assert newcomers.files(workdir) == whole
    shutil.rmtree(workdir)
    if ended:
      break
  assert moment > 10


def _dying(function, calls, moment):
  def call(*arguments, **named):
    if next(calls) == moment:
      raise Killed
    return function(*arguments, **named)

  return call


@pytest.fixture(scope="module")
def half(finished, tmp_path_factory):
  """A run with its journal just written, and its files when it was forgotten."""
  folder = tmp_path_factory.mktemp("half") / "run"
  shutil.copytree(finished("table"), folder)

  def dies(journal):
    raise Killed

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(forgetting, "_STEPS", (dies,))
    with pytest.raises(Killed):
      forget(folder, GONE)
  whole = folder.parent / "whole" / "run"
  shutil.copytree(folder, whole)
  forget(whole, GONE)
  return folder, newcomers.files(whole)


def test_that_a_kill_before_the_journal_leaves_the_run_as_it_was(
  copied, monkeypatch
):
  workdir = copied("table")
  submodels.Store(workdir / "submodels").entries()  # those of the copy
  before = newcomers.files(workdir)

  def dies(*arguments, **named):
    raise Killed

  monkeypatch.setattr(Checkpoints, "wait", dies)
  with pytest.raises(Killed):
    forget(workdir, GONE)
  monkeypatch.undo()
  after = newcomers.files(workdir)
  assert {name: after[name] for name in before} == before
  assert run.reopen(workdir).tasks == ("anna", GONE, "cleo")
  forget(workdir, GONE)
  assert not (workdir / "checkpoints.forgetting").exists()


def test_that_forgetting_again_says_so_and_changes_nothing(copied):
  workdir = copied("table")
  assert not forget(workdir, GONE).before
  before = newcomers.files(workdir)
  assert forget(workdir, GONE).before
  assert newcomers.files(workdir) == before


def test_that_an_unknown_task_is_told_the_nearest(finished):
  with pytest.raises(InputError, match=r"--task=ana: .*did you mean 'anna'"):
    forget(finished("table"), "ana")


def test_that_the_last_task_is_the_folders(copied):
  workdir = copied("table")
  forget(workdir, GONE)
  forget(workdir, "anna")
  with pytest.raises(InputError, match=r"the last one .*remove the folder"):
    forget(workdir, "cleo")


def test_that_an_unfinished_run_is_refused(copied):
  workdir = copied("table")
  (workdir / "verdicts.json").unlink()
  with pytest.raises(InputError, match=r"finished run.*data\.without"):
    forget(workdir, GONE)


def test_that_an_enrolment_refers_to_its_run(copied, tmp_path):
  workdir = copied("table")
  folder = _enroll(workdir, tmp_path / "new", "zoe").folder
  with pytest.raises(InputError, match=rf"--workdir={workdir}$"):
    forget(folder, "zoe")
  with pytest.raises(InputError, match="--retrain"):
    forget(workdir, "zoe", retrains=True)


def test_that_one_of_several_who_joined_together_is_still_no_task_of_the_run(
  copied, tmp_path
):
  workdir = copied("table")
  folder = _enroll(workdir, tmp_path / "new", "zoe", "yan").folder
  for _ in range(2):
    told = forget(workdir, "zoe")
    assert told.folder == folder
    assert not told.shared
    assert told.data.startswith(str(folder))
  assert told.before
  with pytest.raises(InputError, match="--retrain"):
    forget(workdir, "zoe", retrains=True)


def test_that_one_of_several_who_are_joining_is_not_forgotten(copied, tmp_path):
  workdir = copied("table")
  folder = _enroll(workdir, tmp_path / "new", "zoe", "yan").folder
  (folder / "finished.json").unlink()
  with pytest.raises(InputError, match=rf"or remove {folder}:"):
    forget(workdir, "yan")
  assert folder.exists()


def test_that_the_recordings_may_leave_the_data_as_well(copied, tmp_path):
  workdir = copied("table")
  forget(workdir, GONE)
  manifests = corpus.write_manifests(tmp_path / "raw")
  for manifest in manifests.values():
    lines = manifest.read_text().splitlines()
    left = [line for line in lines if json.loads(line)["speaker"] != GONE]
    manifest.write_text("\n".join(left) + "\n")
  path = workdir / "config.json"
  described = json.loads(path.read_text())
  tokenizer = Path(described["config"]["data"]["path"]) / "tokenizer.model"
  prepare(manifests, tmp_path / "data", tokenizer=tokenizer)
  described["config"]["data"]["path"] = str(tmp_path / "data")
  path.write_text(json.dumps(described))
  assert run.reopen(workdir).tasks == LEFT
  described = json.loads(path.read_text())
  described["data_fingerprint"] = "0" * 32
  path.write_text(json.dumps(described))
  with pytest.raises(InputError, match="other recordings or transcripts"):
    run.reopen(workdir)


def test_that_retraining_has_all_but_who_was_forgotten(copied, tmp_path):
  workdir = copied("table")
  weights = tmp_path / "weights.json"
  weights.write_text(json.dumps({GONE: 2.0, "cleo": 3.0}))
  told = json.loads((workdir / "config.json").read_text())
  told["config"]["data"]["task_weights"] = str(weights)
  parts = tmp_path / "parts.json"
  parts.write_text(json.dumps({GONE: 0.1, "cleo": 0.9}))
  told["config"]["data"]["multistyle"]["parts"] = str(parts)
  (workdir / "config.json").write_text(json.dumps(told))
  shutil.copy(weights, workdir / "task_weights.json")
  shutil.copy(parts, workdir / "task_parts.json")
  forget(workdir, GONE)
  out = tmp_path / "anew"
  config = retraining.configuration(workdir, out)
  config.train.steps = 1
  parts = run.assemble(config, out)
  jobs.finish(parts, jobs.train(parts, quiet=True))
  assert members.tasks_of(out) == list(LEFT)
  assert json.loads((out / "task_weights.json").read_text()) == {"cleo": 3.0}
  assert json.loads((out / "task_parts.json").read_text()) == {"cleo": 0.9}
  assert jobs.is_finished(out)
  assert not any(b"bert" in data for data in newcomers.files(out).values())
  retraining.check_vacant(out, workdir, GONE)  # it goes on
  before = newcomers.files(out)
  forget(workdir, "anna")
  retraining.configuration(workdir, out)
  assert newcomers.files(out) == before


def test_that_a_run_is_not_trained_anew_in_a_folder_that_is_taken(
  copied, tmp_path
):
  workdir = copied("table")
  forget(workdir, GONE)
  other = tmp_path / "other"
  shutil.copytree(workdir, other)
  retraining.check_vacant(tmp_path / "new", workdir, GONE)
  for out in (workdir, workdir / "anew", other):
    with pytest.raises(InputError, match=r"--retrain=.*expected a new folder"):
      retraining.check_vacant(out, workdir, GONE)


def test_that_a_run_which_forgot_is_not_trained_from_an_earlier_checkpoint(
  copied,
):
  workdir = copied("table")
  forget(workdir, GONE)
  run.reopen(workdir)
  steps = (workdir / "checkpoints").glob("[0-9]*")
  shutil.rmtree(max(steps, key=lambda path: int(path.name)))
  before = newcomers.files(workdir)
  with pytest.raises(InputError, match="checkpoint that the run ended with"):
    jobs.train(run.reopen(workdir), quiet=True)
  assert newcomers.files(workdir) == before


def test_that_the_files_of_a_sweep_that_name_it_are_told(copied):
  workdir = copied("table")
  (workdir / "asked.json").write_text(json.dumps({"tasks": [GONE, "anna"]}))
  (workdir.parent / "sweep.json").write_text(json.dumps({"tasks": ["anna"]}))
  assert forget(workdir, GONE).named == (str(workdir / "asked.json"),)
  assert len(forget(workdir, "anna").named) == 2
