"""What a new task's row starts from: the nearest of many, and only of its own."""

import jax
import jax.numpy as jnp
import newcomers
import numpy as np
import pytest

from hra import jobs, members, run, submodels
from hra.data.dataset import open_split
from hra.errors import InputError
from hra.growth import start
from hra.growth.enrolment import enroll
from hra.growth.options import Options
from hra.model import Model

NONE = ("train.steps=0",)


def _enroll(workdir, manifest, **options):
  told = Options(**{"settings": NONE, **options})
  return enroll(workdir, str(manifest), told, quiet=True)


def _loss(parts, submodel, task):
  """Nats per label on the training recordings, one by one and not batched."""
  model: Model = parts.model
  tokenizer = parts.backbone.tokenizer
  split = open_split(parts.config.data.path, "train")
  loss = jax.jit(
    lambda row, wave_S, labels_U: model.loss(
      parts.backbone.module,
      submodel.shared,
      row,
      *model.features(wave_S, len(wave_S)),
      labels_U,
      len(labels_U),
    )
  )
  total = weight = 0.0
  for index, of in enumerate(split.tasks):
    if of == task:
      labels_U = np.asarray(tokenizer.encode(split.texts[index]))
      found = loss(submodel.row, split[index].wave_S, labels_U)
      total, weight = total + found.total, weight + found.weight
  return float(total / weight)


@pytest.mark.parametrize(
  "space",
  ["table", "embedding", pytest.param("offset", marks=pytest.mark.slow)],
)
def test_that_the_nearest_has_the_lowest_loss_on_training_recordings(
  copied, tmp_path, space
):
  workdir = copied(space)
  manifest = newcomers.write(tmp_path / "new", names=("zoe", "yan"))
  enrolled = _enroll(workdir, manifest, init="nearest")
  parts = run.reopen(enrolled.folder)
  parts = parts._replace(model=run.reopen(workdir).model)
  store = submodels.Store(workdir / "submodels")
  for task, begun in enrolled.starts.items():
    losses = {
      other: _loss(parts, store[other], task)
      for other in members.tasks_of(workdir)
    }
    nearest = min(losses, key=losses.__getitem__)
    assert begun.task == nearest
    assert begun.loss == pytest.approx(losses[nearest], rel=1e-4)
    for ours, theirs in zip(
      jax.tree.leaves(store[task].row),
      jax.tree.leaves(store[nearest].row),
      strict=True,
    ):
      np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  "space", ["table", pytest.param("offset", marks=pytest.mark.slow)]
)
def test_that_who_joined_before_may_be_the_nearest(copied, tmp_path, space):
  """Also by a row that no task of the run has."""
  workdir = copied(space)
  manifest = newcomers.write(tmp_path / "new")
  last = ("train.select=last", "train.patience=0")
  first = _enroll(
    workdir, manifest, settings=("train.rows.learning_rate=0.1", *last)
  )
  assert first.starts["zoe"].of == 3
  again = _enroll(workdir, manifest, task="twin", init="nearest")
  assert again.starts["twin"].of == 4
  assert again.starts["twin"].task == "zoe"
  assert "'zoe'" in again.starts["twin"].describe()


def test_that_any_number_of_candidates_is_compared_in_chunks(finished):
  parts = run.reopen(finished("table"))
  trained = run.trained_state(parts)
  number = start._CHUNK + 3
  scale_C = np.linspace(-3, 3, number)
  owned = jax.tree.map(
    lambda leaf_N: jnp.einsum("c,...->c...", scale_C, leaf_N[0]), trained.rows
  )
  found = start._Candidates([str(i) for i in range(number)], owned)
  chunks = list(start._chunks(found))
  assert [count for _, count in chunks] == [start._CHUNK, 3]
  rows, starts = start._nearest(
    parts._replace(tasks=("anna",)), trained.shared, found
  )
  batch = start._recordings(jobs.make_loader(parts), 0, bounds=parts.bounds)
  losses = [
    float(
      start._losses(
        parts.model,
        parts.space,
        parts.frozen,
        trained.shared,
        jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], owned),
        batch,
      )[0]
    )
    for i in range(number)
  ]
  best = int(np.argmin(losses))
  assert starts[0].task == str(best)
  assert starts[0].loss == pytest.approx(min(losses), rel=1e-4)
  np.testing.assert_array_equal(
    jax.tree.leaves(rows)[0][0], jax.tree.leaves(owned)[0][best]
  )


def test_that_rows_that_are_not_finite_are_no_candidates():
  rows = {"a": jnp.arange(6.0).reshape(3, 2).at[1, 0].set(jnp.nan)}
  found = start._finite(["x", "y", "z"], rows)
  assert found.names == ["x", "z"]
  np.testing.assert_array_equal(found.owned["a"], [[0.0, 1.0], [4.0, 5.0]])
  with pytest.raises(InputError, match="--init=fresh"):
    start._finite(["y"], {"a": jnp.full((1, 2), jnp.nan)})


def test_that_a_candidate_whose_loss_is_not_finite_is_not_the_nearest(finished):
  parts = run.reopen(finished("table"))._replace(tasks=("anna",))
  trained = run.trained_state(run.reopen(finished("table")))
  owned = jax.tree.map(lambda leaf_N: leaf_N[:2], trained.rows)
  owned = jax.tree.map(lambda leaf_N: leaf_N.at[0].set(1e38), owned)
  found = start._Candidates(["broken", "whole"], owned)
  _, starts = start._nearest(parts, trained.shared, found)
  assert starts[0].task == "whole"
  broken = start._Candidates(
    ["broken"], jax.tree.map(lambda leaf_N: leaf_N[:1], owned)
  )
  with pytest.raises(InputError, match="--init=mean"):
    start._nearest(parts, trained.shared, broken)


@pytest.mark.parametrize("space", ["table", "offset"])
def test_that_a_row_that_is_given_is_what_it_starts_from(
  copied, tmp_path, space
):
  """Also one that joined, on the shared parameters of its run."""
  workdir = copied(space)
  manifest = newcomers.write(tmp_path / "new")
  anna = workdir / "submodels" / "anna.safetensors"
  enrolled = _enroll(workdir, manifest, start=str(anna))
  assert "was given" in enrolled.starts["zoe"].describe()
  store = submodels.Store(workdir / "submodels")
  for ours, theirs in zip(
    jax.tree.leaves(store["zoe"].row),
    jax.tree.leaves(store["anna"].row),
    strict=True,
  ):
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_that_a_start_that_is_not_there_is_refused(copied, tmp_path):
  workdir = copied("table")
  manifest = newcomers.write(tmp_path / "new")
  with pytest.raises(InputError, match="--start=PATH"):
    _enroll(workdir, manifest, init="given")
  with pytest.raises(InputError, match=r"zoe\.safetensors, a LoRA folder"):
    _enroll(workdir, manifest, start=str(tmp_path / "nowhere"))
  assert not (workdir / "enrolled" / "zoe").exists()
