"""Rows that training starts from: files, folders of them, PEFT's LoRA folders."""

import dataclasses
import shutil

import adapted
import corpus
import jax
import numpy as np
import pytest

from hra import jobs, run, submodels
from hra.adapters import families
from hra.config import AdapterConfig, PrepareConfig, SpaceConfig
from hra.data.prepare import prepare
from hra.errors import InputError
from hra.peft import folder as peft_folder
from hra.submodels import Submodel

LORA = AdapterConfig(
  family="lora", width=2, alpha=3.0, sites=("attention.query", "second")
)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
  folder = tmp_path_factory.mktemp("starts")
  data = corpus.prepared(folder)
  return data, corpus.backbone_folder(folder, data)


def _config(material, *, adapter=LORA, space="table", **train):
  config = corpus.config(*material, **train)
  return dataclasses.replace(
    config, adapter=adapter, space=SpaceConfig(kind=space)
  )


def _random(parts, task, *, adapter=LORA, seed=0):
  built = families.build(adapter, parts.backbone.config)
  shared, row = adapted.trees(built, seed=seed)
  return Submodel(
    task=task,
    adapter=adapter,
    row=row,
    shared=shared,
    backbone_fingerprint=parts.backbone.fingerprint,
    shared_fingerprint=submodels.shared_fingerprint(shared),
    summary={},
  )


def _saved(folder, parts, **settings):
  """A Submodel's file for each task."""
  for seed, task in enumerate(parts.tasks):
    submodels.save(folder, _random(parts, task, seed=seed, **settings))
  return submodels.Store(folder)


def _trained(config, workdir):
  parts = run.assemble(config, workdir)
  trained = jobs.train(parts, quiet=True)
  return submodels.Store(jobs.finish(parts, trained))


def _assert_rows(first, second, **close):
  if not close:
    jax.tree.map(np.testing.assert_array_equal, first, second)
    return
  jax.tree.map(
    lambda ours, theirs: np.testing.assert_allclose(ours, theirs, **close),
    first,
    second,
  )


@pytest.mark.parametrize("space", ["table", "offset"])
def test_each_task_starts_from_its_own(material, tmp_path, space):
  parts = run.assemble(_config(material), tmp_path / "parts")
  given = _saved(tmp_path / "given", parts)
  start = {"rows_from": str(tmp_path / "given"), "select": "best"}
  config = _config(material, space=space, **start)
  config.train.steps = 0
  store = _trained(config, tmp_path / "run")
  assert set(store) == set(parts.tasks)
  for task, submodel in store.items():
    _assert_rows(
      submodel.row,
      given[task].row,
      **({"atol": 1e-7} if space == "offset" else {}),
    )


@pytest.mark.parametrize("packed", [False, True])
def test_training_goes_on_from_there_and_resumes(material, tmp_path, packed):
  """As far as an update goes; the files may be gone then."""
  parts = run.assemble(_config(material), tmp_path / "parts")
  folder = tmp_path / "given"
  given = _saved(folder, parts)
  if packed:
    given.pack()
  rows = {task: given[task].row for task in parts.tasks}
  config = _config(material, rows_from=str(folder))
  config.train.rows.learning_rate = 1e-3
  config.train.rows.weight_decay = 0.0
  begun = run.assemble(config, tmp_path / "run")
  trained = jobs.train(begun, quiet=True)
  shutil.rmtree(folder)
  again = jobs.train(begun, quiet=True)
  store = submodels.Store(jobs.finish(begun, trained))
  jax.tree.map(np.testing.assert_array_equal, trained.rows, again.rows)
  for task, row in rows.items():
    moved = jax.tree.map(
      lambda ours, theirs: float(np.abs(ours - theirs).max()),
      store[task].row,
      row,
    )
    assert min(jax.tree.leaves(moved)) > 0
    assert max(jax.tree.leaves(moved)) < 0.02


@pytest.mark.parametrize(
  ("adapter", "why"),
  [
    (
      dataclasses.replace(LORA, alpha=2.0),
      r"alpha=3\.0.*, got one of .*alpha=2",
    ),
    (dataclasses.replace(LORA, sites=("second",)), "sites=second"),
    (AdapterConfig(family="residual", width=4), "family=residual, width=4"),
  ],
)
def test_a_row_of_another_adapter_is_refused(material, tmp_path, adapter, why):
  parts = run.assemble(_config(material), tmp_path / "parts")
  _saved(tmp_path / "given", parts, adapter=adapter)
  config = _config(material, rows_from=str(tmp_path / "given"))
  with pytest.raises(InputError, match=why):
    jobs.train(run.assemble(config, tmp_path / "run"), quiet=True)


def _nobody(folder):
  (folder / "anna.safetensors").unlink()


def _of_another_backbone(folder):
  anna = submodels.Store(folder)["anna"]
  changed = dataclasses.replace(anna, backbone_fingerprint="f" * 32)
  submodels.save(folder, changed)


@pytest.mark.parametrize(
  ("spoil", "why"),
  [
    (_nobody, r"anna\.safetensors, a LoRA folder for task 'anna'"),
    (_of_another_backbone, "a row for the backbone of the run"),
  ],
)
def test_what_a_task_cannot_start_from_is_refused(
  material, tmp_path, spoil, why
):
  parts = run.assemble(_config(material), tmp_path / "parts")
  _saved(tmp_path / "given", parts)
  spoil(tmp_path / "given")
  config = _config(material, rows_from=str(tmp_path / "given"))
  with pytest.raises(InputError, match=why):
    jobs.train(run.assemble(config, tmp_path / "run"), quiet=True)


def test_no_embedding_starts_from_a_row(material, tmp_path):
  parts = run.assemble(_config(material), tmp_path / "parts")
  _saved(tmp_path / "given", parts)
  config = _config(
    material, space="embedding", rows_from=str(tmp_path / "given")
  )
  with pytest.raises(InputError, match="no embedding makes a given row"):
    jobs.train(run.assemble(config, tmp_path / "run"), quiet=True)


@pytest.mark.parametrize(
  "adapter",
  [AdapterConfig(family="none"), AdapterConfig(width=8, heads="shared")],
)
def test_tasks_that_own_nothing_start_from_no_row(material, tmp_path, adapter):
  config = _config(material, adapter=adapter, rows_from=str(tmp_path))
  with pytest.raises(InputError, match="rows_from: expected an adapter of"):
    jobs.train(run.assemble(config, tmp_path / "run"), quiet=True)


def test_a_head_on_another_controller_is_no_start(material, tmp_path):
  """Shared parameters are the run's own, and random."""
  hra = AdapterConfig(width=8)
  config = _config(material, adapter=hra)
  parts = run.assemble(config, tmp_path / "parts")
  for task in parts.tasks:
    submodel = _random(parts, task, adapter=hra)
    submodels.save_shared(tmp_path / "given", submodel.shared)
    submodels.save(tmp_path / "given", submodel)
  config.train.rows_from = str(tmp_path / "given")
  with pytest.raises(InputError, match="a row for the shared parameters"):
    jobs.train(run.assemble(config, tmp_path / "run"), quiet=True)


def test_lora_of_peft_is_trained_on_and_goes_back(tmp_path):
  """One folder for all tasks of a run; PEFT hears what became of it."""
  loras, originals = map(pytest.importorskip, ("loras", "originals"))
  family = "w2v_bert"
  recognizer = loras.backbone(tmp_path, family)
  start = loras.save(tmp_path / "start", loras.made(family, lora_alpha=4))
  given = recognizer.submodel(start)
  prepare(
    corpus.write_manifests(tmp_path / "raw"),
    tmp_path / "data",
    config=PrepareConfig(unknown="drop"),
    tokenizer=tmp_path / "backbone",
  )
  config = _config(
    (tmp_path / "data", tmp_path / "backbone"),
    adapter=given.adapter,
    rows_from=str(start),
  )
  anna = _trained(config, tmp_path / "run")["anna"]
  moved = jax.tree.leaves(
    jax.tree.map(
      lambda ours, theirs: np.abs(ours - theirs).max(), anna.row, given.row
    )
  )
  assert min(moved) > 0
  assert max(moved) < 0.2
  path = peft_folder.write(tmp_path / "anna", anna, recognizer.stored)
  lengths = (40, 31)
  mel_BTF = originals.features(family, lengths)
  ours, valid_B = recognizer.logits(
    mel_BTF, np.array(lengths), [anna] * 2, guard=False
  )
  theirs = loras.logits(
    loras.loaded(family, path),
    mel_BTF,
    lengths,
    order=loras.order(recognizer),
  )
  for one, other, valid in zip(ours, theirs, valid_B, strict=True):
    np.testing.assert_allclose(one[:valid], other[:valid], atol=1e-5)
