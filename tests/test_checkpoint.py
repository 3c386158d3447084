"""Save, restore, what stays, and what is refused."""

import errno
import os
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from orbax.checkpoint import v1 as ocp

from hra import files, processes
from hra.checkpoint import Checkpoints
from hra.config import MeshConfig
from hra.errors import InputError, StorageError
from hra.sharding import make_mesh
from hra.train import state as train_state
from hra.train.placement import make_state
from hra.train.session import Keeper, agreed


def _state(scale: float = 1.0):
  return {
    "rows": {"a": scale * jnp.arange(6.0).reshape(2, 3)},
    "step": jnp.int32(3),
  }


@pytest.fixture
def checkpoints(tmp_path):
  opened = Checkpoints(tmp_path / "checkpoints", keep=2)
  yield opened
  opened.close()


def test_restores_the_newest_bit_for_bit(checkpoints):
  for step in (1, 2, 3):
    checkpoints.save(step, _state(step))
  checkpoints.wait()
  assert checkpoints.latest == 3
  restored = checkpoints.restore(_state())
  np.testing.assert_array_equal(restored["rows"]["a"], _state(3)["rows"]["a"])
  assert restored["step"].dtype == jnp.int32


def test_keeps_the_newest_only(checkpoints, tmp_path):
  for step in (1, 2, 3):
    checkpoints.save(step, _state(step))
  checkpoints.wait()
  kept = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
  assert kept == ["2", "3"]


def test_what_was_saved_does_not_follow_the_donated_buffers(checkpoints):
  state = _state()
  checkpoints.save(1, state)
  state["rows"]["a"].delete()
  checkpoints.wait()
  np.testing.assert_array_equal(
    checkpoints.restore(_state())["rows"]["a"], _state()["rows"]["a"]
  )


def test_another_shape_is_named(checkpoints):
  checkpoints.save(1, _state())
  checkpoints.wait()
  other = {"rows": {"a": jnp.zeros((2, 4))}, "step": jnp.int32(0)}
  with pytest.raises(InputError, match=r"rows/a: expected shape \(2, 4\)"):
    checkpoints.restore(other)
  with pytest.raises(InputError, match=r"rows/a: expected nothing"):
    checkpoints.restore({**_state(), "rows": {"b": jnp.zeros(2)}})


def test_rows_of_nobody_hide_no_other_number_of_tasks(checkpoints):
  """A divided table is padded, so that N and N + 1 tasks may have equal rows."""
  mesh = make_mesh(MeshConfig())
  space, optimizers = tiny.space(), tiny.optimizers()

  def of(names):
    return make_state(
      lambda: train_state.init(space, optimizers, names, key=jax.random.key(0)),
      mesh=mesh,
      shard_rows="always",
    )

  checkpoints.save(1, of(tiny.NAMES[:3]))
  checkpoints.wait()
  with pytest.raises(InputError, match=r"expected shape \(4,.*got shape \(3,"):
    checkpoints.restore(of(tiny.NAMES[:4]))


@pytest.fixture
def second(monkeypatch):
  """Makes this the second process, and the first say what it is called with."""

  def says(value):
    monkeypatch.setattr(processes, "first_says", lambda own: value)
    monkeypatch.setattr(processes, "is_first", lambda: False)
    monkeypatch.setattr(files, "_APPEARS_SECONDS", 0.5)

  return says


def test_all_restore_the_step_that_the_first_names(tmp_path, second):
  _saved(tmp_path, {1: 0.5, 2: 0.25}, keep=2).close()
  late = Checkpoints(tmp_path, keep=3)
  _saved(tmp_path, {3: 0.75}, keep=3).close()
  assert late.latest == 2
  for step in (3, 1):
    second(step)
    restored = late.restore(_state(), step=late.latest)
    np.testing.assert_array_equal(
      restored["rows"]["a"], _state(step)["rows"]["a"]
    )
  second(4)
  with pytest.raises(InputError, match="in a file system or bucket that they"):
    late.restore(_state())
  late.close()


def test_a_folder_that_only_the_first_sees_is_told(tmp_path, second):
  second(1)
  with pytest.raises(InputError, match="what the first process has there"):
    Checkpoints(tmp_path / "elsewhere", access="read")


def test_all_save_where_the_first_has_no_checkpoint(second):
  saved = []
  checkpoints = types.SimpleNamespace(
    latest=1, save=lambda *args, figure: saved.append(args)
  )
  keeper = Keeper(checkpoints, seconds=60)
  keeper.save(1, "state")
  assert not saved
  second(None)
  keeper.save(1, "state")
  assert saved == [(1, "state")]


def test_a_state_of_another_position_than_the_first_has_is_refused(
  tmp_path, second
):
  assert agreed(3, tmp_path) == 3
  second(4)
  with pytest.raises(InputError, match="step 4, as the first process has"):
    agreed(3, tmp_path)


def test_nothing_to_restore_is_an_error(checkpoints):
  with pytest.raises(InputError, match="a checkpoint"):
    checkpoints.restore(_state())


def _steps(folder):
  return sorted(int(path.name) for path in folder.iterdir())


def _saved(folder, wers, *, keep=1, keep_best=1):
  checkpoints = Checkpoints(folder, keep=keep, keep_best=keep_best)
  for step, wer in wers.items():
    checkpoints.save(step, _state(step), figure=wer)
  checkpoints.wait()
  return checkpoints


def test_the_best_stays_beside_the_newest(tmp_path):
  wers = {1: 0.5, 2: 0.25, 3: None, 4: 0.25, 5: 0.75, 6: None}
  checkpoints = _saved(tmp_path, wers, keep=2)
  assert _steps(tmp_path) == [2, 5, 6]  # of equals, the earlier
  assert (checkpoints.best, checkpoints.latest) == (2, 6)
  best = checkpoints.restore(_state(), step=checkpoints.best)
  np.testing.assert_array_equal(best["rows"]["a"], _state(2)["rows"]["a"])
  checkpoints.close()


def test_the_best_is_known_to_the_next_process(tmp_path):
  _saved(tmp_path, {1: 0.5, 2: 0.25, 3: 0.75}).close()
  again = _saved(tmp_path, {4: 0.5}, keep_best=1)
  assert _steps(tmp_path) == [2, 4]
  assert (again.best, again.latest) == (2, 4)
  again.close()


def test_without_keep_best_only_the_newest_stay(tmp_path):
  _saved(tmp_path, {1: 0.25, 2: 0.5, 3: 0.5}, keep_best=0).close()
  assert _steps(tmp_path) == [3]


def test_a_step_that_is_there_stays_and_what_came_of_it_is_the_next(tmp_path):
  _saved(tmp_path, {1: 0.75, 2: None}, keep=2).close()
  again = _saved(tmp_path, {2: 0.5}, keep=2)
  again.wait()
  assert (again.latest, again.best) == (3, 3)
  again.save(3, _state(7), figure=0.6)
  again.save(5, _state(5), figure=0.5)
  again.close()
  reread = Checkpoints(tmp_path, access="read")
  assert _steps(tmp_path) == [3, 4, 5]
  assert reread.best == 3
  for step, number in ((3, 2), (4, 7), (5, 5)):
    kept = reread.restore(_state(), step=step)
    expected = _state(number)["rows"]["a"]
    np.testing.assert_array_equal(kept["rows"]["a"], expected)
  reread.close()


def test_reading_leaves_a_save_that_runs_alone(tmp_path):
  _saved(tmp_path, {1: None}).close()
  running = tmp_path / "2.orbax-checkpoint-tmp"
  running.mkdir()
  Checkpoints(tmp_path, access="read").close()
  assert running.exists()
  _saved(tmp_path, {3: None}).close()
  assert not running.exists()


def test_reading_makes_no_folder(tmp_path):
  with pytest.raises(InputError, match="expected a checkpoint, got none"):
    Checkpoints(tmp_path / "missing", access="read")
  assert not (tmp_path / "missing").exists()


def _damaged(folder, copy):
  """Copies of a folder of steps 1 and 2, each with one file of 2 hurt."""
  files = sorted(path for path in (folder / "2").rglob("*") if path.is_file())
  for file in files:
    for hurt in (lambda path: path.unlink(), lambda path: os.truncate(path, 9)):
      shutil.rmtree(copy, ignore_errors=True)
      shutil.copytree(folder, copy)
      hurt(copy / file.relative_to(folder))
      yield file


def test_half_a_copy_is_never_read(tmp_path):
  """Whichever file is missing or short: an error, or the very same state."""
  _saved(tmp_path / "whole", {1: None, 2: 0.5}, keep=2).close()
  refused = []
  for _ in _damaged(tmp_path / "whole", tmp_path / "copy"):
    try:
      checkpoints = Checkpoints(tmp_path / "copy", keep=2)
      restored = checkpoints.restore(jax.tree.map(jnp.zeros_like, _state()))
    except InputError as error:
      refused.append(str(error))
    else:
      np.testing.assert_array_equal(
        restored["rows"]["a"], _state(2)["rows"]["a"]
      )
  assert len(refused) >= 6
  for message in refused:
    assert "\n" not in message
    assert message.startswith(str(tmp_path / "copy"))
    assert "delete" in message
  shutil.rmtree(tmp_path / "copy" / "2")
  checkpoints = Checkpoints(tmp_path / "copy")
  restored = checkpoints.restore(_state())
  np.testing.assert_array_equal(restored["rows"]["a"], _state(1)["rows"]["a"])


def test_what_to_delete_and_where_it_goes_on_is_said(tmp_path):
  _saved(tmp_path, {1: None, 2: None}, keep=2).close()
  shutil.rmtree(tmp_path / "2" / "state")
  with pytest.raises(
    InputError, match=r"/2: expected a whole .* delete it to go on from step 1"
  ):
    Checkpoints(tmp_path).restore(_state())
  shutil.rmtree(tmp_path / "1")
  with pytest.raises(InputError, match="delete it to train anew"):
    Checkpoints(tmp_path).restore(_state())


def test_a_half_deleted_older_step_hinders_nobody(tmp_path):
  _saved(tmp_path, {1: 0.5, 2: 0.25, 3: None}, keep=3).close()
  shutil.rmtree(tmp_path / "1" / "state")
  (tmp_path / "1" / "_CHECKPOINT_METADATA").unlink()
  again = _saved(tmp_path, {4: None})
  assert (again.best, again.latest) == (2, 4)
  assert _steps(tmp_path) == [2, 4]
  again.close()


def _save_and_wait(checkpoints):
  checkpoints.save(2, _state())
  checkpoints.wait()


_TENSORSTORE = (
  'RESOURCE_EXHAUSTED: Failed writing: "/d/5/x": Failed to write 9 bytes to file '
  "18: No space left on device [os_error_code='28']"
)


@pytest.mark.parametrize("method", ["save_async", "wait"])
@pytest.mark.parametrize(
  ("error", "told"),
  [
    (ValueError(_TENSORSTORE), "No space left on device"),
    (ValueError("x [os_error_code='122']"), os.strerror(errno.EDQUOT)),
    (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "Permission"),
    (OSError(errno.EIO, os.strerror(errno.EIO)), os.strerror(errno.EIO)),
  ],
)
def test_a_place_that_refuses_is_one_line(
  checkpoints, tmp_path, monkeypatch, method, error, told
):
  checkpoints.save(1, _state())
  checkpoints.wait()

  def refuse(*args, **kwargs):
    raise error

  with monkeypatch.context() as patch:
    patch.setattr(ocp.training.Checkpointer, method, refuse)
    with pytest.raises(StorageError) as raised:
      _save_and_wait(checkpoints)
  message = str(raised.value)
  assert message.startswith(f"{tmp_path / 'checkpoints' / '2'}: ")
  assert told in message
  assert "the newest whole checkpoint: step " in message
  assert "\n" not in message


def test_another_error_stays_what_it_is(checkpoints, monkeypatch):
  def fail(*args, **kwargs):
    raise ValueError("a bug")

  monkeypatch.setattr(ocp.training.Checkpointer, "save_async", fail)
  with pytest.raises(ValueError, match="a bug"):
    checkpoints.save(2, _state())


def test_an_unreachable_bucket_is_one_line(checkpoints, monkeypatch):
  def fail(*args, **kwargs):
    raise ConnectionError("no route\nto host")

  checkpoints._folder = type(checkpoints._folder)("gs://bucket/run")
  monkeypatch.setattr(ocp.training.Checkpointer, "save_async", fail)
  with pytest.raises(StorageError, match="no route") as raised:
    checkpoints.save(2, _state())
  assert "none yet" in str(raised.value)


def test_a_failed_save_is_told_without_waiting_for_the_next(
  checkpoints, monkeypatch
):
  def fail(self):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  checkpoints.check()  # nothing is being saved
  checkpoints.save(1, _state())
  while checkpoints._checkpointer.is_saving_in_progress():
    pass
  monkeypatch.setattr(ocp.training.Checkpointer, "wait", fail)
  with pytest.raises(StorageError, match="No space left"):
    checkpoints.check()
  monkeypatch.undo()
