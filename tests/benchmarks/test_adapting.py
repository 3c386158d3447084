"""The gate before steps are timed, at a tiny size: what passes, and what doesn't."""

import jax
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import adapting_ours as ours
import adapting_parity as parity
import adapting_registration as registration
import adapting_torch as theirs
import originals
import serving_engine

from hra.backbone import store
from hra.backbone.foreign.convert import convert
from hra.config import AdapterConfig
from hra.errors import InputError
from hra.peft import folder as peft_folder

SHAPE = ours.Shape(speakers=3, recordings=2, seconds=0.5)
ADAPTER = AdapterConfig(family="lora", width=2)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
  """Tiny operations gain nothing by more, which wait for each other."""
  before = theirs.torch.get_num_threads()
  theirs.use_threads(1)
  yield
  theirs.use_threads(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """(original, our backbone, LoRA folders, our contestants)"""
  folder = tmp_path_factory.mktemp("adapting")
  source = originals.save(folder / "original", "lasr", originals.model("lasr"))
  convert(str(source), folder / "backbone")
  stored = store.load(folder / "backbone")
  folders = [
    peft_folder.write(folder / str(index), each, stored)
    for index, each in enumerate(
      serving_engine.speakers(stored, ADAPTER, SHAPE.speakers)
    )
  ]
  contestants = ours.Contestants(
    *(
      ours.contestant(stored, folders, SHAPE, together=together)
      for together in (SHAPE.speakers, 1)
    )
  )
  return theirs.load(source), stored, folders, contestants


@pytest.fixture(scope="module")
def torches(made):
  original, _, folders, contestants = made
  batch = contestants.joint.batch
  heard = theirs.spoken(batch.wave_KBS, batch.labels_KBU)
  return {
    name: build(original, folders, heard, rate=ours.RATE)
    for name, build in theirs.CONTESTANTS.items()
  }


def _exact(made, folders):
  batch = made[-1].joint.batch
  heard = theirs.spoken(batch.wave_KBS, batch.labels_KBU)
  return theirs.exact(made[0], folders, heard)


def test_torch_and_we_agree(made, torches):
  _, stored, folders, contestants = made
  batch = contestants.joint.batch
  exact = _exact(made, folders)
  found = parity.all_agree(torches, exact, stored, folders, batch)
  assert found.keys() == {*theirs.CONTESTANTS, "ours"}
  # A loss that is zero, or a row that does nothing, would agree as well.
  adapter, rows_K = ours.read_rows(folders, stored)
  loss_K, gradient = ours.gradients(stored, adapter, rows_K, batch)
  assert (loss_K > 0.5).all()
  assert len(set(loss_K.tolist())) == SHAPE.speakers
  assert all(np.abs(leaf).max() > 1e-4 for leaf in jax.tree.leaves(gradient))


def test_joint_steps_are_steps_alone(made):
  contestants = made[-1]
  assert parity.joint_is_alone(contestants) < parity.MOVED


def _spoilt(tree, speaker, *, by):
  """With the largest number of a leaf of one speaker multiplied."""
  first, *rest = jax.tree.leaves(tree)
  first = np.array(first)
  own = first[speaker].reshape(-1)
  own[np.abs(own).argmax()] *= by
  return jax.tree.unflatten(jax.tree.structure(tree), [first, *rest])


def test_a_spoilt_row_is_found(made, torches):
  _, stored, folders, contestants = made
  swapped = [folders[0], folders[2], folders[1]]
  exact = _exact(made, folders)
  with pytest.raises(InputError, match="ours: loss of speaker 1"):
    parity.all_agree(torches, exact, stored, swapped, contestants.joint.batch)


def test_a_spoilt_gradient_or_joint_row_is_found(made):
  _, _, _, contestants = made
  rows = jax.device_get(contestants.joint.state.rows)
  assert parity.gradients_agree(rows, rows, where="x") == 0
  with pytest.raises(InputError, match="gradient of speaker 2"):
    parity.gradients_agree(rows, _spoilt(rows, 2, by=1.01), where="x")
  near = _spoilt(rows, 2, by=1.006)
  off = _spoilt(rows, 0, by=1.01)
  parity.gradients_agree(rows, off, where="x", rounded=near)
  with pytest.raises(InputError, match="gradient of speaker 0"):
    parity.gradients_agree(
      rows, _spoilt(rows, 0, by=1.02), where="x", rounded=near
    )
  start = jax.tree.map(np.zeros_like, rows)
  assert parity.rows_agree(rows, rows, start) == 0
  with pytest.raises(InputError, match="of speaker 1"):
    parity.rows_agree(_spoilt(rows, 1, by=1.1), rows, start)


def test_nan_agrees_with_nothing():
  loss_K = np.asarray([1.0, np.nan])
  with pytest.raises(InputError, match="loss of speaker 1"):
    parity.losses_agree(loss_K, loss_K, where="x")


@pytest.mark.parametrize("name", theirs.CONTESTANTS)
def test_torch_takes_steps_that_lower_the_loss(made, name):
  original, _, folders, contestants = made
  batch = contestants.joint.batch
  heard = theirs.spoken(batch.wave_KBS, batch.labels_KBU)
  trained = theirs.CONTESTANTS[name](original, folders, heard, rate=0.01)
  before, _ = trained.gradients()
  for _ in range(5):
    trained.run()
  after, _ = trained.gradients()
  assert (after < before).all()


def test_all_ways_of_registration_hold_the_same_rows(made, tmp_path):
  original, stored, _, _ = made
  count = 3
  written = registration.make(tmp_path, stored, ADAPTER, count)
  found = registration.theirs(original.model, written, timed=2)
  found |= registration.ours(stored, written)
  assert len(found) == 7
  assert all(0 < each.seconds < 100 for each in found.values())
  assert {each.timed for each in found.values()} == {2, count}
  stacked = registration.stacked(written.folders)
  assert {len(leaf) for leaf in stacked.values()} == {count}
  loose, packed = map(registration.read, (written.store, written.packed))
  table = registration.placing(stored, packed)()
  for index, path in enumerate(written.folders):
    row = peft_folder.read(path, stored).row
    jax.tree.map(np.testing.assert_array_equal, loose[index].row, row)
    jax.tree.map(np.testing.assert_array_equal, packed[index].row, row)
    placed = jax.tree.map(lambda leaf, slot=index + 1: leaf[slot], table)
    jax.tree.map(np.testing.assert_array_equal, placed, row)
