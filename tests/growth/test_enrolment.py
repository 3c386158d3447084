"""New tasks join a finished run, of which nothing else changes."""

import json

import jax
import newcomers
import numpy as np
import pytest

from hra import jobs, members, run, scoring, submodels
from hra.adapters.spaces import freeze
from hra.backbone.store import load
from hra.errors import InputError
from hra.evaluate.recognizer import Recognizer
from hra.growth.enrolment import enroll
from hra.growth.options import Options
from hra.train import loop
from hra.train.state import chosen_rows

NONE = ("train.steps=0",)
"""What is exported then is what a task starts from."""
LAST = ("train.select=last", "train.patience=0")
"""What is exported then is what was trained, though noise teaches nothing."""
SPACES = pytest.mark.parametrize(
  "space",
  ["table", "embedding", pytest.param("offset", marks=pytest.mark.slow)],
)


def _enroll(workdir, manifest, **options):
  return enroll(workdir, str(manifest), Options(**options), quiet=True)


def _row(workdir, task):
  return submodels.Store(workdir / "submodels")[task].row


def _assert_rows(got, expected, *, tolerance=0.0):
  assert jax.tree.structure(got) == jax.tree.structure(expected)
  for ours, theirs in zip(
    jax.tree.leaves(got), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@SPACES
def test_that_nothing_of_the_run_changes_but_a_submodel_is_added(
  copied, tmp_path, space
):
  workdir = copied(space)
  before = newcomers.files(workdir)
  enrolled = _enroll(workdir, newcomers.write(tmp_path / "new"))
  after = newcomers.files(workdir)
  for own in ("index.json", "ledger.json"):  # the store's, of who joined
    assert before.pop(f"submodels/{own}") != after.pop(f"submodels/{own}")
  assert {name: after[name] for name in before} == before
  added = after.keys() - before.keys()
  outside = {name for name in added if not name.startswith("enrolled/zoe/")}
  assert outside == {"submodels/zoe.safetensors"}
  store = submodels.Store(workdir / "submodels")
  assert store["zoe"].shared_fingerprint == store["anna"].shared_fingerprint
  assert (
    enrolled.to_json()["tasks"]["zoe"]["verdict"] == enrolled.verdicts["zoe"]
  )
  backbone = load(run.backbone_of(workdir))
  wave = np.zeros(9000, np.float32)
  texts = Recognizer(backbone).transcribe(
    [wave, wave], [store["zoe"], None], guard=False
  )
  assert len(texts) == 2


@SPACES
def test_that_an_enrolment_is_a_run_that_can_be_evaluated(
  copied, tmp_path, space
):
  workdir = copied(space)
  enrolled = _enroll(workdir, newcomers.write(tmp_path / "new"))
  parts = run.reopen(enrolled.folder)
  trained = run.trained_state(parts)
  results = scoring.evaluate(parts, trained, split=parts.config.data.test_split)
  assert results["tasks"] == enrolled.dev["tasks"]
  assert list(results["tasks"]) == ["zoe"]
  owned = chosen_rows(trained)
  row = freeze(parts.space, trained.shared["space"], owned)
  _assert_rows(_row(workdir, "zoe"), jax.tree.map(lambda leaf: leaf[0], row))
  parent = run.trained_state(run.reopen(workdir))
  _assert_rows(trained.shared, parent.shared)
  assert set(owned) == ({"embedding"} if space == "embedding" else {"head"})


def test_that_a_row_is_fitted(copied, tmp_path):
  workdir = copied("table")
  manifest = newcomers.write(tmp_path / "new")
  _enroll(workdir, manifest, task="still", settings=NONE)
  _enroll(workdir, manifest, task="moved", steps=3, settings=LAST)
  _enroll(workdir, manifest, task="kept", steps=3)
  still, moved = _row(workdir, "still"), _row(workdir, "moved")
  _assert_rows(_row(workdir, "kept"), still)  # as none was better on dev
  store = submodels.Store(workdir / "submodels")
  assert store["kept"].summary["chosen_step"] == 0
  assert store["moved"].summary["chosen_step"] is None
  assert any(
    not np.array_equal(a, b)
    for a, b in zip(jax.tree.leaves(still), jax.tree.leaves(moved), strict=True)
  )


@SPACES
def test_that_the_mean_is_over_the_runs_own_tasks(copied, tmp_path, space):
  workdir = copied(space)
  rows = [_row(workdir, task) for task in members.tasks_of(workdir)]
  enrolled = _enroll(workdir, newcomers.write(tmp_path / "new"), settings=NONE)
  assert enrolled.starts["zoe"].of == 3
  mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *rows)
  _assert_rows(_row(workdir, "zoe"), mean, tolerance=1e-5)


@SPACES
def test_that_a_fresh_row_is_that_of_a_task_of_the_run(copied, tmp_path, space):
  """Of a space that generates rows, with what it has learned since."""
  workdir = copied(space)
  _enroll(
    workdir, newcomers.write(tmp_path / "new"), init="fresh", settings=NONE
  )
  parts = run.reopen(workdir)._replace(tasks=("anna", "zoe"))
  owned = run.initial_state(parts).rows
  shared = run.trained_state(run.reopen(workdir)).shared["space"]
  rows = freeze(parts.space, shared, owned)
  _assert_rows(
    _row(workdir, "zoe"),
    jax.tree.map(lambda leaf: leaf[1], rows),
    tolerance=1e-6,
  )


@pytest.mark.parametrize("fit", ["row", "embedding"])
def test_that_an_embedding_run_fits_either(copied, tmp_path, fit):
  workdir = copied("embedding")
  enrolled = _enroll(
    workdir, newcomers.write(tmp_path / "new"), fit=fit, settings=NONE
  )
  assert enrolled.fit == fit
  kind = run.reopen(enrolled.folder).config.space.kind
  assert kind == {"row": "table", "embedding": "embedding"}[fit]
  rows = [_row(workdir, task) for task in members.tasks_of(workdir)]
  mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *rows)
  _assert_rows(_row(workdir, "zoe"), mean, tolerance=1e-5)


def test_that_together_each_task_gets_what_it_gets_alone(copied, tmp_path):
  workdir = copied("table")
  names = ("zoe", "yan")
  together = newcomers.write(tmp_path / "both", names=names)
  enrolled = _enroll(workdir, together, steps=4)
  assert enrolled.folder.name.startswith("2-tasks-")
  alone = tmp_path / "both" / "zoe.jsonl"
  lines = together.read_text().splitlines()
  alone.write_text("\n".join(lines[:6]) + "\n")
  in_company = _row(workdir, "zoe")
  for name in names:
    (workdir / "submodels" / f"{name}.safetensors").unlink()
  (workdir / "enrolled").rename(tmp_path / "aside")
  _enroll(workdir, alone, steps=4)
  _assert_rows(_row(workdir, "zoe"), in_company, tolerance=1e-5)


@pytest.fixture
def interrupted(monkeypatch):
  """Enrolls, and is killed at the second step."""
  step = loop._Training._write

  def dies(self, *arguments):
    step(self, *arguments)
    self.keeper.wait()
    if self.position >= 2:
      raise RuntimeError("killed")

  def begin(workdir, manifest):
    with monkeypatch.context() as patched:
      patched.setattr(loop._Training, "_write", dies)
      with pytest.raises(RuntimeError, match="killed"):
        _enroll(workdir, manifest)

  return begin


def test_that_an_interrupted_enrolment_goes_on(copied, tmp_path, interrupted):
  workdir, other = copied("table"), tmp_path / "other"
  manifest = newcomers.write(tmp_path / "new")
  interrupted(workdir, manifest)
  assert not (workdir / "submodels" / "zoe.safetensors").exists()
  _enroll(workdir, manifest)
  killed = (workdir / "submodels" / "zoe.safetensors").read_bytes()
  (workdir / "enrolled").rename(other)
  submodels.Store(workdir / "submodels").delete("zoe")
  _enroll(workdir, manifest)
  assert (workdir / "submodels" / "zoe.safetensors").read_bytes() == killed


def test_that_an_enrolment_goes_on_as_it_began(copied, tmp_path, interrupted):
  workdir = copied("table")
  manifest = newcomers.write(tmp_path / "new")
  interrupted(workdir, manifest)
  note = workdir / "enrolled/zoe/enrolment.json"
  noted = note.read_bytes()
  for options, told in (
    ({"init": "nearest"}, "--init=nearest.*'mean'"),
    ({"steps": 3}, "forget first"),
  ):
    with pytest.raises(InputError, match=told):
      _enroll(workdir, manifest, **options)
    assert note.read_bytes() == noted
  more = newcomers.write(tmp_path / "more", count=7)
  with pytest.raises(InputError, match="expected the recordings and options"):
    _enroll(workdir, more)
  assert note.read_bytes() == noted
  enrolled = _enroll(workdir, manifest)
  assert enrolled.starts["zoe"].init == "mean"
  assert note.read_bytes() == noted


def test_that_shapes_are_the_same_for_each_who_joins(copied, tmp_path):
  workdir = copied("table")
  shapes = []
  for name, count, seconds in (("zoe", 5, 0.6), ("yan", 8, 0.5)):
    manifest = newcomers.write(
      tmp_path / name, names=(name,), count=count, seconds=seconds
    )
    enrolled = _enroll(workdir, manifest, steps=1)
    loader = jobs.make_loader(run.reopen(enrolled.folder))
    shapes.append([leaf.shape for leaf in jax.tree.leaves(loader[0])])
  assert shapes[0] == shapes[1]


def test_that_a_longer_recording_has_a_bucket_of_its_own(copied, tmp_path):
  workdir = copied("table")
  manifest = newcomers.write(tmp_path / "new", seconds=0.9)
  enrolled = _enroll(workdir, manifest, steps=1)
  seconds = run.reopen(enrolled.folder).config.data.bucket_seconds
  assert seconds == pytest.approx((0.72, 0.96))


@pytest.mark.parametrize(
  ("names", "options", "told"),
  [
    (("anna",), {}, r"task 'anna'.*one that is in .*--task.*hra forget"),
    (("zoe",), {"task": "anna"}, r"task 'anna'.*one that is in"),
    (("zoe", "yan"), {"task": "x"}, r"--task=x: expected recordings of one"),
    ((None,), {}, r"(?s)'speaker'.*--task=NAME"),
    (("zoe",), {"fit": "embedding"}, r"--fit=embedding.*--fit=row"),
    (("zoe",), {"settings": ("adapter.width=9",)}, r"config\.adapter"),
    (("zoe",), {"settings": ("train.stepz=9",)}, r"'steps'"),
    (("zoe",), {"steps": -1}, r"config\.train\.steps"),
  ],
)
def test_that_what_can_not_be_writes_nothing(
  finished, tmp_path, names, options, told
):
  workdir = finished("table")
  before = newcomers.files(workdir)
  manifest = newcomers.write(tmp_path, names=names)
  with pytest.raises(InputError, match=told):
    _enroll(workdir, manifest, **options)
  assert newcomers.files(workdir) == before
  assert not (workdir / "enrolled").exists()


def test_that_recordings_without_a_name_are_the_task_that_is_given(
  copied, tmp_path
):
  workdir = copied("table")
  manifest = newcomers.write(tmp_path / "new", names=(None,))
  enrolled = _enroll(workdir, manifest, task="zoe", settings=NONE)
  assert list(enrolled.verdicts) == ["zoe"]


def test_that_a_task_joins_once(copied, tmp_path):
  workdir = copied("table")
  manifest = newcomers.write(tmp_path / "new")
  _enroll(workdir, manifest, settings=NONE)
  with pytest.raises(InputError, match=r"in .*enrolled/zoe.*hra forget"):
    _enroll(workdir, manifest, settings=NONE)


def test_that_too_small_a_dev_part_is_refused_but_unguarded(copied, tmp_path):
  workdir = copied("table")
  manifest = newcomers.write(tmp_path / "new")
  big = ("evaluate.guard_words=9",)
  with pytest.raises(InputError, match=r"'zoe'.*9 words.*got 2.*--unguarded"):
    _enroll(workdir, manifest, settings=big)
  assert not list((workdir / "enrolled").glob("*"))
  enrolled = _enroll(workdir, manifest, settings=(*big, *NONE), unguarded=True)
  assert enrolled.verdicts == {"zoe": "unjudged"}


def test_that_three_recordings_join_unguarded(copied, tmp_path):
  """So few that nothing is held out."""
  manifest = newcomers.write(tmp_path / "new", count=3)
  enrolled = _enroll(copied("table"), manifest, unguarded=True, steps=2)
  assert enrolled.verdicts == {"zoe": "unjudged"}
  assert enrolled.dev is None


def test_that_a_run_that_is_not_finished_is_refused(copied, tmp_path):
  workdir = copied("table")
  manifest = newcomers.write(tmp_path / "new")
  (workdir / "submodels" / "anna.safetensors").unlink()
  with pytest.raises(InputError, match="expected a finished run"):
    _enroll(workdir, manifest)


def test_that_files_of_other_shared_parameters_are_refused(copied, tmp_path):
  workdir = copied("table")
  folder = workdir / "submodels"
  anna = submodels.Store(folder)["anna"]
  shared = jax.tree.map(lambda leaf: leaf + 1, anna.shared)
  fingerprint = submodels.save_shared(folder, shared)
  other = dict(vars(anna), shared=shared, shared_fingerprint=fingerprint)
  submodels.save(folder, submodels.Submodel(**other))
  with pytest.raises(InputError, match=r"shared parameters of the run"):
    _enroll(workdir, newcomers.write(tmp_path / "new"))


def test_that_tasks_that_own_nothing_are_none_to_add(copied, tmp_path):
  workdir = copied("table")
  path = workdir / "config.json"
  for change in ({"heads": "shared"}, {"family": "full"}):
    told = json.loads(path.read_text())
    told["config"]["adapter"] |= change
    path.write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"tasks own .*config\.adapter"):
      _enroll(workdir, newcomers.write(tmp_path / "new"))


def test_that_an_enrolment_is_no_run_to_add_to(copied, tmp_path):
  workdir = copied("table")
  manifest = newcomers.write(tmp_path / "new")
  enrolled = _enroll(workdir, manifest, settings=NONE)
  with pytest.raises(InputError, match=rf"--workdir={workdir}$"):
    _enroll(enrolled.folder, manifest, task="yan")
