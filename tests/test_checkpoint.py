"""Save, restore, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from hra.checkpoint import Checkpoints
from hra.errors import InputError


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


def test_nothing_to_restore_is_an_error(checkpoints):
  with pytest.raises(InputError, match="a checkpoint"):
    checkpoints.restore(_state())
