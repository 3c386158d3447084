"""The same training on 1 device, on 8 simulated ones (data x fsdp x tensor), and on
4 in each of 2 processes, of which none holds the whole backbone."""

import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import several
import tiny

from hra.backbone import store
from hra.config import BackboneConfig
from hra.data.tokenizer import Tokenizer
from hra.sharding import named_leaves

SECONDS = 900
"""After which a worker has failed: each compiles."""
WORKER = Path(__file__).parent / "worker.py"
PATH = {"PYTHONPATH": os.pathsep.join([str(WORKER.parents[1]), *sys.path])}


class Trained(NamedTuple):
  told: list[dict[str, Any]]
  """Of each process."""
  kept: dict[str, np.ndarray]

  @property
  def losses(self) -> np.ndarray:
    return np.array(self.told[0]["losses"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  made = tmp_path_factory.mktemp("backbone")
  tokenizer = Tokenizer.load(store.folder_of("tiny"))
  store.save(
    made,
    tiny.backbone(vocabulary=tokenizer.vocabulary),
    frontend=tiny.FRONTEND,
    tokenizer=tokenizer,
    about={},
  )
  return str(made)


def _train(
  dtype: str,
  folder: str,
  out: Path,
  axes: tuple[int, int, int],
  count: int = 1,
  *kept: str,
  controller: str = "indrnn",
) -> Trained:
  asked = [dtype, str(out), folder, controller, *map(str, axes)]
  command = [str(WORKER), *asked, *kept]
  devices = int(np.prod(axes)) // count
  jobs = several.start(command, count=count, devices=devices, **PATH)
  ends = several.ended(jobs, seconds=SECONDS)
  for end in ends:
    assert end.code == 0, end.err[-3000:]
  with np.load(out) as kept:
    return Trained(
      [json.loads(end.out.splitlines()[-1]) for end in ends], dict(kept)
    )


ONE = ("one", (1, 1, 1), 1)
EIGHT = ("eight", (2, 2, 2), 1)
APART = ("apart", (1, 4, 2), 2)


def _check_equal(
  dtype: str, folder: str, tmp_path: Path, *meshes: tuple[str, Any, int]
) -> None:
  one = _train(dtype, folder, tmp_path / "one.npz", *ONE[1:])
  assert one.losses[-1].mean() < one.losses[0].mean()
  for name, axes, count in meshes:
    many = _train(dtype, folder, tmp_path / f"{name}.npz", axes, count)
    np.testing.assert_allclose(one.losses, many.losses, rtol=1e-5)
    if dtype == "float64":
      assert one.kept.keys() == many.kept.keys()
      for leaf, values in one.kept.items():
        np.testing.assert_allclose(values, many.kept[leaf], rtol=0, atol=1e-9)
    for told in many.told:
      # No step was compiled twice, and each process has the same numbers.
      assert told["compilations"] == one.told[0]["compilations"] == 1
      assert told["losses"] == many.told[0]["losses"]
      assert told["fingerprint"] == one.told[0]["fingerprint"]
      if count > 1:  # its half, and what is too small to be divided
        assert told["held"] < 0.6 * told["numbers"]


def test_devices_of_two_processes_train_what_one_does(tmp_path, folder):
  _check_equal("float64", folder, tmp_path, APART)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_so_does_the_quickstart_s_model(tmp_path, dtype):
  _check_equal(dtype, "tiny", tmp_path, EIGHT, APART)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("dtype", "controller"), [("float32", "gru"), ("float64", "indrnn")]
)
@pytest.mark.parametrize(("first", "second"), [(APART, ONE), (ONE, EIGHT)])
def test_another_mesh_goes_on_from_a_checkpoint(
  tmp_path, dtype, controller, first, second
):
  """As the first would have gone on.

  In float32 with the controller that has no kinks. ReLU's gradient jumps where the
  IndRNN's sum is 0, and of the 30,000 sums of a step one lies within rounding of it
  now and then: of step 11 one is 7e-7, where they scatter by 1.1.
  """

  def train(mesh: tuple[str, Any, int], *kept: str) -> Trained:
    name, axes, count = mesh
    out = tmp_path / f"{name}.npz"
    return _train(dtype, "tiny", out, axes, count, *kept, controller=controller)

  whole = train(first)
  parts = [train(mesh, str(tmp_path / "kept")) for mesh in (first, second)]
  losses = np.concatenate([each.losses for each in parts])
  assert 2 * len(parts[0].losses) == len(losses)
  np.testing.assert_allclose(losses, whole.losses, rtol=1e-5)
  if dtype == "float64":
    for leaf, values in whole.kept.items():
      np.testing.assert_allclose(values, parts[1].kept[leaf], rtol=0, atol=1e-9)


@pytest.mark.slow
def test_no_process_holds_a_large_backbone(tmp_path):
  """Half of its 186 MiB, and what is read of one parameter on the way."""
  config = BackboneConfig(
    width=512, layers=8, heads=8, feed_forward=2048, vocabulary=28
  )
  rng = np.random.default_rng(0)
  shapes = dict(named_leaves(store.abstract(config, tiny.FRONTEND)))

  def parts(path):
    for _ in range(shapes[path].shape[0]):
      yield rng.standard_normal((1, *shapes[path].shape[1:]), np.float32)

  store.save_streamed(
    tmp_path,
    config,
    parts=parts,
    frontend=tiny.FRONTEND,
    tokenizer=Tokenizer.load(store.folder_of("tiny")),
    about={},
  )
  worker = str(WORKER.with_name("restoring.py"))
  jobs = several.start([worker, str(tmp_path)], count=2, devices=4, **PATH)
  for end in several.ended(jobs, seconds=SECONDS):
    assert end.code == 0, end.err[-3000:]
    whole, grown = json.loads(end.out.splitlines()[-1])
    assert whole > 150 * 2**20
    assert 0.4 * whole < grown < 0.75 * whole
