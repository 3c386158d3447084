"""Who is evaluated when, which row is kept, who stops; and that it resumes."""

import os
import signal
from pathlib import Path

import corpus
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hra import jobs, run
from hra.errors import Interrupted
from hra.train import judge, loop, state
from hra.train.optimizer import updates_done

OWN = 8
"""Own steps of each of three tasks, of which two train in a joint step."""
WORDS = (10, 10, 0)


def _places(position):
  """0 and 1, 1 and 2, 2 and 0, and again: each task's own steps in order."""
  pair = ((0, 1), (1, 2), (2, 0))[position % 3]
  return [(task, _own_before(task, position)) for task in pair]


def _own_before(task, position):
  pairs = ((0, 1), (1, 2), (2, 0))
  return sum(task in pairs[earlier % 3] for earlier in range(position))


def _fresh():
  """A state whose rows say how often they trained; no model behind it."""
  space = tiny.space()
  fresh = state.init(
    space,
    tiny.optimizers(),
    tiny.NAMES[:3],
    key=jax.random.key(0),
    keep_best=True,
  )
  return fresh._replace(rows=jax.tree.map(jnp.zeros_like, fresh.rows))


def _stepped(now, task):
  """The state after an own step of a task."""
  counts = now.rows_optimizer._replace(
    count=now.rows_optimizer.count.at[task].add(1)
  )
  rows = jax.tree.map(lambda leaf: leaf.at[task].add(1), now.rows)
  return now._replace(rows=rows, rows_optimizer=counts)


def _played(
  errors,
  *,
  every=2,
  patience=(0, 0, 0),
  frozen_from=0,
  from_start=False,
  bad=None,
  looks=(),
):
  """Plays 12 joint steps; `errors[task]` are those of its evaluations.

  Args:
    bad: task -> the own step in which its loss is not finite.
    looks: joint steps after which the judge looks who takes part no more.

  Returns the state, and the (position, task, own steps) of every evaluation.
  """
  asked = []
  position, now = 0, _fresh()

  def evaluate(trained, tasks, heed):
    heed()
    leaf = jax.tree.leaves(trained.rows)[0]
    done = [int(leaf[task].ravel()[0]) for task in tasks]
    asked.extend(
      (position, task, own) for task, own in zip(tasks, done, strict=True)
    )
    wrong = [
      errors[task][own // every] for task, own in zip(tasks, done, strict=True)
    ]
    return judge.Figures(
      np.asarray(wrong), np.asarray([WORDS[task] for task in tasks])
    )

  plan = judge.Plan(
    places=_places,
    own_steps_N=np.full(3, OWN),
    patience_N=np.asarray(patience),
    every=every,
    frozen_from=frozen_from,
    max_bad_steps=1,
    from_start=from_start,
  )
  judging = judge.Judge(now, plan, evaluate, position=position)
  while position < 3 * OWN // 2:
    if judging.waits_for(position):
      now, _ = judging.judge(now, position=position, heed=lambda: None)
    for task, own in _places(position):
      if now.progress.stopped_N[task] or now.skipped_N[task]:
        continue
      if (bad or {}).get(task) == own:
        now = now._replace(skipped_N=now.skipped_N.at[task].add(1))
      else:
        now = _stepped(now, task)
    judging.trained(position)
    position += 1
    if position in looks:
      judging.look(now)
  judging.finish(now)
  now, _ = judging.judge(now, position=position, heed=lambda: None)
  return now, asked


@pytest.mark.parametrize("looks", [(), (3,), (5, 9)])
def test_a_task_in_quarantine_has_done_what_it_did_before(looks):
  now, asked = _played([FALLING] * 3, bad={0: 3}, looks=looks)
  assert now.progress.evaluated_N.tolist() == [4, 8, 8]
  assert now.progress.best_step_N.tolist() == [2, 8, -1]
  assert [own for _, task, own in asked if task == 0] == [2, 3]


FLAT = [9] * 5
FALLING = [9, 7, 5, 3, 1]
RISING = [1, 3, 5, 7, 9]


def _best(played, task):
  values = {
    float(leaf[task].ravel()[0])
    for leaf in jax.tree.leaves(played.progress.best)
  }
  (value,) = values
  return value


def test_a_task_is_due_by_its_own_steps_before_it_trains_again():
  _, asked = _played([FALLING, FALLING, FLAT])
  for task in range(3):
    mine = [(position, own) for position, each, own in asked if each == task]
    assert [own for _, own in mine] == [2, 4, 6, 8]
    for position, own in mine:
      assert _own_before(task, position) == own  # none came in between


def test_the_row_that_is_kept_is_that_of_the_best_evaluation():
  played, _ = _played([FALLING, [9, 5, 2, 4, 3], FLAT])
  assert played.progress.best_step_N.tolist() == [8, 4, -1]
  assert played.progress.best_errors_N.tolist()[:2] == [1, 2]
  assert (_best(played, 0), _best(played, 1)) == (8, 4)
  chosen = jax.tree.leaves(state.chosen_rows(played))[0]
  # Who has no dev words is never judged and ends with its last row.
  assert [float(row.ravel()[0]) for row in chosen] == [8, 4, 8]


def test_of_equal_errors_the_earlier_row_stays():
  played, _ = _played([FLAT, [9, 5, 5, 4, 4], FLAT])
  assert played.progress.best_step_N.tolist() == [2, 6, -1]
  assert (_best(played, 0), _best(played, 1)) == (2, 6)


def test_the_start_is_the_first_best_row_where_it_is_judged():
  played, asked = _played([RISING, FALLING, FLAT], from_start=True)
  assert [own for _, task, own in asked if task == 0] == [0, 2, 4, 6, 8]
  assert played.progress.best_step_N.tolist() == [0, 8, -1]
  assert (_best(played, 0), _best(played, 1)) == (0, 8)
  chosen = jax.tree.leaves(state.chosen_rows(played))[0]
  assert [float(row.ravel()[0]) for row in chosen] == [0, 8, 8]


def test_patience_stops_who_gets_no_better():
  played, asked = _played([RISING, FALLING, FLAT], patience=(2, 2, 2))
  assert played.progress.stopped_N.tolist() == [True, False, False]
  # Best at 2, then two evaluations without a lower error; nothing after.
  assert [own for _, task, own in asked if task == 0] == [2, 4, 6]
  assert played.progress.best_step_N.tolist() == [2, 8, -1]
  rows = jax.tree.leaves(played.rows)[0]
  assert [float(row.ravel()[0]) for row in rows] == [6, 8, 8]


def test_who_has_no_dev_words_never_stops():
  played, _ = _played([FALLING, FALLING, FLAT], patience=(1, 1, 1))
  assert not played.progress.stopped_N.any()
  assert played.progress.waited_N.tolist()[2] == 0


def test_nothing_is_judged_while_shared_parameters_train():
  played, asked = _played(
    [RISING, RISING, FLAT], patience=(1, 1, 1), frozen_from=9
  )
  early = [(task, own) for position, task, own in asked if position < 9]
  assert len(early) >= 4  # evaluated and noted
  best = played.progress.best_step_N.tolist()
  assert best[:2] == [
    6,
    6,
  ]  # the first that counts, though lower ones were seen
  assert played.progress.stopped_N.tolist() == [True, True, False]


def test_at_the_end_who_was_never_judged_is():
  played, _ = _played([RISING, RISING, FLAT], frozen_from=12, every=4)
  assert played.progress.best_step_N.tolist() == [8, 8, -1]


@pytest.fixture(scope="module")
def material(tmp_path_factory):
  """A job in which tasks stop, and its final state."""
  folder = tmp_path_factory.mktemp("judged")
  data = corpus.prepared(folder)
  config = corpus.config(
    data,
    corpus.backbone_folder(folder, data),
    eval_every=2,
    select="best",
    patience=2,
    shared_part=0.0,
  )
  config.train.steps = 8
  return config, jobs.train(run.assemble(config, folder / "whole"), quiet=True)


def _assert_same_bits(first, second):
  jax.tree.map(
    lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)),
    first,
    second,
  )


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_interrupted_at_an_evaluation_it_ends_with_the_same_bits(
  material, tmp_path, monkeypatch, when
):
  config, whole = material
  real = judge.Judge.judge
  calls = []

  def interrupted(self, trained, *, position, heed):
    def told():
      if when == "during" and len(calls) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
      heed()

    calls.append(position)
    if when == "before" and len(calls) == 2:
      os.kill(os.getpid(), signal.SIGTERM)
    found = real(self, trained, position=position, heed=told)
    if when == "after" and len(calls) == 2:
      os.kill(os.getpid(), signal.SIGTERM)
    return found

  monkeypatch.setattr(judge.Judge, "judge", interrupted)
  with pytest.raises(Interrupted):
    jobs.train(run.assemble(config, tmp_path), quiet=True)
  assert len(calls) == 2
  monkeypatch.setattr(judge.Judge, "judge", real)
  again = jobs.train(run.assemble(config, tmp_path), quiet=True)
  _assert_same_bits(whole, again)


def test_a_job_whose_tasks_all_stopped_is_finished(material, monkeypatch):
  """It passes over what is left, and resumes as finished."""
  config, whole = material
  assert whole.progress.stopped_N.all()
  assert int(whole.step) == 12  # joint steps of the whole plan
  assert (updates_done(whole.rows_optimizer) < config.train.steps).all()
  monkeypatch.setattr(loop.Window, "add", None)  # nothing may train
  whole_run = Path(config.data.path).parent / "whole"
  again = jobs.train(run.assemble(config, whole_run), quiet=True)
  _assert_same_bits(whole, again)
