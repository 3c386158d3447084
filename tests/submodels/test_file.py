"""Submodel files: round trips, names that file systems dislike, refusals."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import stores
import tiny
from hypothesis import given
from hypothesis import strategies as st

from hra import submodels
from hra.adapters import families
from hra.adapters.interface import check_trees
from hra.config import AdapterConfig
from hra.errors import InputError
from hra.submodels import Store, Submodel, file

SUMMARY = {"own_steps": 40, "dev_wer": 0.25, "backbone_dev_wer": 0.5}
NAMES = [
  "anna",
  "Anna Þórsdóttir",
  "../escape",
  "/etc/passwd",
  "a/b",
  "a_b",
  "a%2Fb",
  ".hidden",
  "..",
  "shared-0123",
  "%73hared-0123",
  "x" * 300,
  "x" * 299 + "y",
  "患者" * 60,
  "CON: aux?*",
  "tab\tand\nline",
  "trailing. ",
]


def _random(shapes, seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype), shapes
  )


def _submodel(folder, task, *, adapter=tiny.ADAPTER, seed=1, shared_seed=0):
  """A Submodel with random numbers, its shared parameters in the folder."""
  built = families.build(adapter, tiny.BACKBONE, mels=tiny.FRONTEND.num_mels)
  key = jax.random.key(0)
  shared = _random(jax.eval_shape(built.init_shared, key), shared_seed)
  return Submodel(
    task=task,
    adapter=adapter,
    row=_random(jax.eval_shape(built.init_task, key), seed),
    shared=shared,
    backbone_fingerprint="f" * 32,
    shared_fingerprint=submodels.save_shared(folder, shared),
    summary=SUMMARY,
  )


def _assert_equal(first, second):
  for field in dataclasses.fields(Submodel):
    if field.name in ("version", "fingerprint"):  # which the store gives
      continue
    ours, theirs = getattr(first, field.name), getattr(second, field.name)
    if field.name in ("row", "shared"):
      jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    else:
      assert ours == theirs


@pytest.mark.parametrize(
  "adapter",
  [
    AdapterConfig(width=8),
    AdapterConfig(width=8, head="feed_forward", head_width=4, heads="both"),
    AdapterConfig(width=8, heads="shared"),
    AdapterConfig(width=8, controller="gru", controllers="per_layer"),
    AdapterConfig(family="residual", width=4, norm="per_task"),
    AdapterConfig(family="lora", width=2, sites=("convolution",), alpha=1.0),
    AdapterConfig(family="bitfit"),
    AdapterConfig(family="full"),
    AdapterConfig(family="none"),
  ],
)
def test_what_was_saved_comes_back_bit_for_bit(tmp_path, adapter):
  submodel = _submodel(tmp_path, "anna", adapter=adapter)
  path = submodels.save(tmp_path, submodel)
  _assert_equal(submodels.load(path), submodel)
  _assert_equal(Store(tmp_path)["anna"], submodel)
  check_trees(
    families.build(adapter, tiny.BACKBONE, mels=tiny.FRONTEND.num_mels),
    submodels.load(path).row,
    submodels.load(path).shared,
    where="anna",
  )


def test_store_is_a_mapping_of_every_name(tmp_path):
  folder = tmp_path / "store"
  folder.mkdir()
  saved = {}
  for seed, name in enumerate(NAMES):
    saved[name] = _submodel(folder, name, seed=seed)
    path = submodels.save(folder, saved[name])
    assert path.parent == folder
    assert path.is_file()
  store = Store(folder)
  assert len(store) == len(NAMES)
  assert set(store) == set(NAMES)
  for name, submodel in store.items():
    _assert_equal(submodel, saved[name])
  assert "anna" in store
  assert "bert" not in store
  assert store.get("bert") is None
  with pytest.raises(KeyError, match="no Submodel of task 'bert'"):
    store["bert"]
  # Nothing outside, nothing besides: one shared file for all of them.
  assert list(tmp_path.iterdir()) == [folder]
  assert len(list(folder.glob("shared-*"))) == 1
  beside = {".lock", "index.json", "ledger.json"}
  assert (
    len({each.name for each in folder.iterdir()} - beside) == len(NAMES) + 1
  )


@given(
  st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
  st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_file_names_are_distinct_and_safe(first, second):
  names = [submodels.file_name(name) for name in (first, second)]
  assert (names[0] == names[1]) == (first == second)
  for name in names:
    assert len(name.encode()) < 200
    assert name.isprintable()
    assert not set(name) & set('/\\:*?"<>|')
    assert not name.startswith((".", "shared-"))


@pytest.mark.parametrize(
  ("summary", "worse"),
  [
    ({"verdict": "not better"}, True),
    ({"verdict": "better"}, False),
    ({"verdict": "unjudged"}, False),
    (SUMMARY, False),
  ],
)
def test_verdict_comes_back(tmp_path, summary, worse):
  judged = dataclasses.replace(_submodel(tmp_path, "anna"), summary=summary)
  submodels.save(tmp_path, judged)
  assert Store(tmp_path)["anna"].worse_than_backbone == worse


def test_long_names_differ_by_their_end():
  short, long = (submodels.file_name("é" * 150 + end) for end in ("", "x"))
  assert short != long
  assert max(len(short), len(long)) < 200


def test_shared_parameters_stand_once_for_each_training(tmp_path):
  for name, shared_seed in (("anna", 0), ("bert", 0), ("cleo", 1)):
    submodel = _submodel(tmp_path, name, shared_seed=shared_seed)
    submodels.save(tmp_path, submodel)
  assert len(list(tmp_path.glob("shared-*"))) == 2
  store = Store(tmp_path)
  assert store["anna"].shared is store["bert"].shared
  anna, cleo = (
    store[name].shared["controller"]["kernel"] for name in ("anna", "cleo")
  )
  assert np.any(anna != cleo)


def test_a_file_under_the_name_of_another_task_is_refused(tmp_path):
  """A renamed file, or a disk that takes Anna for anna."""
  path = submodels.save(tmp_path, _submodel(tmp_path, "anna"))
  path.rename(tmp_path / submodels.file_name("Anna"))
  with pytest.raises(InputError, match=r"of task 'Anna', got that of 'anna'"):
    Store(tmp_path)["Anna"]


def _truncate(path):
  path.write_bytes(path.read_bytes()[:-9])


def _tamper(path):
  tensors = safetensors.numpy.load_file(path)
  tensors["controller/bias"][0] += 1.0
  safetensors.numpy.save_file(tensors, path)


def _foreign(path):
  safetensors.numpy.save_file({"x": np.zeros(2)}, path)


def _of_tomorrow(path):
  data = safetensors.numpy.save(
    {"x": np.zeros(2)}, metadata={"hra": '{"format": 3}'}
  )
  path.write_bytes(data)


@pytest.mark.parametrize(
  ("spoil", "which", "expected"),
  [
    (_truncate, "anna", "a Submodel file"),
    (lambda path: path.write_bytes(b""), "anna", "a Submodel file"),
    (_foreign, "anna", "without our metadata"),
    (_of_tomorrow, "anna", "format 2"),
    (_truncate, "shared-*", "a safetensors file"),
    (_tamper, "shared-*", "content of hash"),
    (lambda path: path.unlink(), "shared-*", "copy the folder whole"),
  ],
)
def test_spoilt_file_is_refused_by_name(tmp_path, spoil, which, expected):
  submodels.save(tmp_path, _submodel(tmp_path, "anna"))
  (path,) = tmp_path.glob(f"{which}.safetensors")
  spoil(path)
  with pytest.raises(InputError) as refused:
    Store(tmp_path)["anna"]
  assert str(path) in str(refused.value)
  assert expected in str(refused.value)


def test_a_row_never_lands_on_another_controller(tmp_path):
  """Copying one run's shared file over another's name is found out."""
  first, second = tmp_path / "first", tmp_path / "second"
  for folder, shared_seed in ((first, 0), (second, 1)):
    folder.mkdir()
    submodel = _submodel(folder, "anna", shared_seed=shared_seed)
    submodels.save(folder, submodel)
  (ours,), (theirs,) = (f.glob("shared-*") for f in (first, second))
  shutil.copy(theirs, ours)
  with pytest.raises(InputError, match="content of hash"):
    Store(first)["anna"]


def test_store_needs_a_folder(tmp_path):
  with pytest.raises(InputError, match="a folder of Submodels"):
    Store(tmp_path / "nowhere")


def _spoilt(data, *, bits):
  """Each byte changed, alone; and the file cut off at each length."""
  for place in range(len(data)):
    for bit in bits:
      changed = bytes([data[place] ^ bit])
      yield data[:place] + changed + data[place + 1 :]
    yield data[:place]
  yield data + b"\0"


def test_no_changed_byte_is_read_as_another_submodel(tmp_path):
  """It is refused in one line that names the file, or it said nothing."""
  store = submodels.create(tmp_path)
  entry = store.publish(stores.made("anna", shared_seed=None))
  expected = store["anna"]
  path = tmp_path / "anna.safetensors"
  changed = list(_spoilt(path.read_bytes(), bits=(1, 32)))
  refused = 0
  for data in changed:
    path.write_bytes(data)
    found = stores.tried(lambda: store["anna"], path)
    if found is None:
      refused += 1
    else:
      stores.assert_is(found, expected)
      assert (found.version, found.fingerprint) == entry[1:3]
    stores.tried(lambda: store.find("anna"), path)  # of the header alone
  assert refused > 0.9 * len(changed)


def test_no_changed_byte_of_shared_parameters_is_read(tmp_path):
  submodels.create(tmp_path).publish(stores.made("anna"))
  expected = Store(tmp_path)["anna"]
  (path,) = tmp_path.glob("shared-*")
  changed = list(_spoilt(path.read_bytes(), bits=(4,)))
  refused = 0
  for data in changed:
    path.write_bytes(data)
    found = stores.tried(lambda: Store(tmp_path)["anna"], path)
    if found is None:
      refused += 1
    else:
      stores.assert_is(found, expected)
  assert refused > 0.9 * len(changed)


@given(st.binary(max_size=200))
def test_nothing_that_is_no_submodel_is_read(data):
  for spoilt in (data, len(data).to_bytes(8, "little") + data):
    with pytest.raises(InputError, match="a Submodel file"):
      file.decode(spoilt, where="anna")


def _with(content, **fields):
  """The file of someone who may also compute its fingerprint."""
  changed = content.told._replace(fields={**content.told.fields, **fields})
  return dataclasses.replace(content, told=changed).numbered(
    changed.fields["version"]
  )


@pytest.mark.parametrize(
  "fields",
  [
    {"shared": "../../secret"},
    {"shared": ""},
    {"version": 0},
    {"version": True},
    {"version": "1"},
    {"task": ""},
    {"task": None},
    {"summary": []},
    {"adapter": {"family": "unheard"}},
    {"adapter": {"unknown": 1}},
    {"backbone": 1},
    {"format": 2.5},
  ],
)
def test_metadata_that_can_not_be_are_refused(fields):
  content = _with(file.content(stores.made("anna")), **fields)
  with pytest.raises(InputError, match=r"^anna.safetensors"):
    file.decode(content.encode(), where="anna.safetensors")


def test_a_tensor_inside_another_is_refused():
  content = file.content(stores.made("anna"))
  nested = {**content.tensors, "head": content.tensors["head/bias"]}
  odd = dataclasses.replace(content, tensors=nested).numbered(1)
  with pytest.raises(InputError, match="'head'"):
    file.decode(odd.encode(), where="anna")


def test_the_file_is_what_safetensors_reads(tmp_path):
  submodel = stores.made("anna")
  path = submodels.save(tmp_path, submodel)
  tensors = safetensors.numpy.load_file(path)
  assert tensors.keys() == {"head/kernel", "head/bias"}
  for name, leaf in submodel.row["head"].items():
    np.testing.assert_array_equal(tensors[f"head/{name}"], leaf)


def test_numbers_without_an_axis_keep_their_shape(tmp_path):
  submodel = stores.made("anna", row={"scale": np.float32(2.0)})
  path = submodels.save(tmp_path, submodel)
  assert submodels.load(path).row["scale"].shape == ()


def test_a_former_version_is_read_by_its_path(tmp_path):
  for seed in range(2):
    submodels.save(tmp_path, stores.made("anna", seed))
  former = submodels.load(tmp_path / "versions" / "anna" / "1.safetensors")
  stores.assert_is(former, stores.made("anna", 0))


def test_a_file_that_is_not_there_is_named(tmp_path):
  with pytest.raises(InputError, match=r"anna\.safetensors.*no such file"):
    submodels.load(tmp_path / "anna.safetensors")


def test_what_a_row_may_not_hold_is_refused_before_it_is_written(tmp_path):
  with pytest.raises(InputError, match="int64"):
    submodels.save(tmp_path, stores.made("anna", row={"x": np.arange(3)}))
  assert not (tmp_path / "anna.safetensors").exists()
