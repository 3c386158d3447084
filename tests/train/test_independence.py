"""A Submodel trained among others is the one trained alone.

With what is shared fixed, the generator of an embedding space included. Alone is
a process of its own whose data hold that task only.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import corpus
import numpy as np
import pytest
import soundfile
import tiny

from hra.backbone import store
from hra.config import AdapterConfig, PrepareConfig, SpaceConfig
from hra.config_tree import to_dict
from hra.data.dataset import split_names
from hra.data.prepare import prepare
from hra.data.tokenizer import Tokenizer

DRIVER = Path(__file__).parent / "alone.py"
STEPS = 20
RATE = 0.005
WORDS = ("a", "b", "ab", "be", "cd")
SETTINGS = (
  {},
  {"learning_rate": 0.001, "schedule": "linear"},
  {"steps": 13, "weight_decay": 0.1, "learning_rate": 0.02},
  {"warmup_steps": 5, "clip_norm": 0.01, "patience": 0},
)


def _manifest(folder: Path, tasks: int) -> dict[str, list[dict]]:
  """Recordings of noise: 1 to 7 of each task; the third has no dev words."""
  rng = np.random.default_rng(tasks)
  lines: dict[str, list[dict]] = {"train": [], "dev": []}
  for place in range(tasks):
    for split, count in (("train", 1 + place % 7), ("dev", 3)):
      for index in range(count if (split, place) != ("dev", 2) else 0):
        path = folder / f"{split}-{place}-{index}.wav"
        samples = int(16_000 * rng.uniform(0.4, 0.7))
        soundfile.write(path, 0.1 * rng.standard_normal(samples), 16_000)
        lines[split].append(
          {
            "audio_filepath": str(path),
            "text": " ".join(rng.choice(WORDS, 3)),
            "speaker": f"speaker {place:03d}",
          }
        )
  return lines


def _prepared(
  folder: Path,
  manifest: dict[str, list[dict]],
  *,
  only: str | None = None,
  tokenizer: Path | None = None,
) -> Path:
  manifests = {}
  for split, lines in manifest.items():
    kept = [line for line in lines if only in (None, line["speaker"])]
    if kept:
      manifests[split] = folder / f"{split}.jsonl"
      manifests[split].write_text("\n".join(map(json.dumps, kept)) + "\n")
  prepare(
    manifests,
    folder / "prepared",
    config=PrepareConfig(split_by="given"),
    tokenizer=tokenizer,
  )
  return folder / "prepared"


class Study:
  """A joint job, and each of its tasks alone."""

  def __init__(
    self,
    folder: Path,
    *,
    tasks: int,
    dtype: str,
    adapter: AdapterConfig,
    space: SpaceConfig,
  ):
    self._folder, self._dtype = folder, dtype
    raw = folder / "raw"
    raw.mkdir()
    self._manifest = _manifest(raw, tasks)
    data = _prepared(raw, self._manifest)
    self._tokenizer = data / "tokenizer.model"
    tokenizer = Tokenizer.load(self._tokenizer)
    module = tiny.backbone(vocabulary=tokenizer.vocabulary)
    # One that babbles: a fresh one says next to nothing, and so it stays.
    module.head.kernel[...] *= 3
    module.head.bias[...] = module.head.bias[...].at[0].set(-2.0)
    store.save(
      folder / "backbone",
      module,
      frontend=tiny.FRONTEND,
      tokenizer=tokenizer,
      about={},
    )
    self.names = tuple(f"speaker {place:03d}" for place in range(tasks))
    self._given = {
      name: SETTINGS[place % len(SETTINGS)]
      for place, name in enumerate(self.names)
    }
    self._adapter, self._space = adapter, space
    self.joint = self._run("joint", data, self._given)

  def alone(self, name: str) -> dict[str, np.ndarray]:
    folder = self._folder / name
    folder.mkdir()
    data = _prepared(
      folder, self._manifest, only=name, tokenizer=self._tokenizer
    )
    return self._run(name, data, {name: self._given[name]})

  def _run(
    self, name: str, data: Path, given: dict[str, dict]
  ) -> dict[str, np.ndarray]:
    dev = "dev" in split_names(data)
    config = corpus.config(
      data,
      self._folder / "backbone",
      eval_every=2,
      select="best" if dev else "last",
      patience=2 if dev else 0,
      shared_part=0.0,
    )
    config.adapter, config.space = self._adapter, self._space
    config.backbone.dtype = config.backbone.param_dtype = self._dtype
    config.data.tasks_per_batch = 4
    config.train.steps = STEPS
    config.train.save_seconds = 1e6
    config.train.rows.learning_rate = RATE
    told = self._folder / f"{name}.settings.json"
    told.write_text(json.dumps(given))
    config.train.task_settings = str(told)
    described = self._folder / f"{name}.json"
    described.write_text(json.dumps(to_dict(config)))
    workdir = self._folder / f"{name}.run"
    done = subprocess.run(
      [sys.executable, str(DRIVER), str(described), str(workdir)],
      env={
        **os.environ,
        "JAX_ENABLE_X64": str(int(self._dtype == "float64")),
      },
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(workdir / "final.npz") as leaves:
      return dict(leaves)


def _losses(run: dict[str, np.ndarray], place: int, heard: int) -> np.ndarray:
  """Of the own steps in which the task was heard.

  Alone, who stops early ends the job; among others its places are masked, or
  passed over.
  """
  mine = run["log/task"] == place
  order = np.argsort(run["log/own_step"][mine])
  own_steps = run["log/own_step"][mine][order]
  losses = run["log/loss"][mine][order]
  assert (own_steps[:heard] == np.arange(heard)).all()
  assert losses[:heard].all()
  assert not losses[heard:].any()
  return losses[:heard]


def _own(run: dict[str, np.ndarray], place: int) -> dict[str, np.ndarray]:
  """What the job knows of one task."""
  groups = ("rows", "progress", "chosen", "skipped_N")
  return {
    path: leaf[place] for path, leaf in run.items() if path.startswith(groups)
  }


def _assert_alone_is_joint(study: Study, name: str, *, dtype: str) -> None:
  place = study.names.index(name)
  alone = study.alone(name)
  assert alone["tasks"].tolist() == [name]
  mine, joint = _own(alone, 0), _own(study.joint, place)
  # A job without any dev words has no best rows to keep.
  assert set(mine) <= set(joint)
  heard = int(joint["rows_optimizer/count"])
  assert heard >= 6  # the earliest end: two evaluations after the first
  losses = [
    _losses(*each, heard) for each in ((alone, 0), (study.joint, place))
  ]
  if not joint["progress/words_N"]:
    # Asked and not judged among others; alone there is no split to ask.
    del mine["progress/evaluated_N"]
  for path, leaf in mine.items():
    if not np.issubdtype(leaf.dtype, np.floating):
      # Stopped when, best when, counts: the same in every respect.
      assert leaf == joint[path], path
    elif dtype == "float64":
      scale = np.maximum(np.abs(leaf), RATE)
      assert leaf.dtype == np.float64
      assert (np.abs(leaf - joint[path]) <= 1e-9 * scale).all(), path
    else:
      gap = np.linalg.norm(leaf - joint[path])
      assert gap <= 1e-3 * np.linalg.norm(leaf), path
  rtol = 1e-9 if dtype == "float64" else 1e-5
  np.testing.assert_allclose(*losses, rtol=rtol)
  rate = SETTINGS[place % len(SETTINGS)].get("learning_rate", RATE)
  assert np.abs(mine[_first(mine)]).max() > rate


def _first(mine: dict[str, np.ndarray]) -> str:
  return next(path for path in mine if path.startswith("rows/"))


def _assert_unlike(study: Study, *, best_steps: int = 3) -> None:
  """The tasks stop, and are best, at different times; two are never judged."""
  joint = study.joint
  counts = joint["rows_optimizer/count"]
  assert len(set(counts.tolist())) >= 3
  assert joint["progress/stopped_N"].any()
  assert not joint["progress/stopped_N"].all()
  assert len(set(joint["progress/best_step_N"].tolist())) >= best_steps
  assert (joint["progress/best_step_N"][2], counts[2]) == (-1, 13)


HRA = AdapterConfig(width=8)
GENERATED = SpaceConfig(kind="embedding", size=4, rank=3)


def test_two_of_six_tasks_alone_in_float64(tmp_path):
  study = Study(
    tmp_path, tasks=6, dtype="float64", adapter=HRA, space=SpaceConfig()
  )
  _assert_unlike(study)
  with ThreadPoolExecutor(2) as pool:
    for each in [
      pool.submit(_assert_alone_is_joint, study, name, dtype="float64")
      for name in (study.names[2], study.names[3])
    ]:
      each.result()


@pytest.mark.slow
@pytest.mark.parametrize(
  ("dtype", "tasks", "checked", "adapter", "space"),
  [
    ("float64", 128, 128, HRA, SpaceConfig()),
    ("float32", 128, 16, HRA, SpaceConfig()),
    ("float64", 12, 4, AdapterConfig(width=8, heads="both"), GENERATED),
    ("float64", 12, 4, AdapterConfig(family="bitfit"), SpaceConfig()),
    ("float64", 12, 4, AdapterConfig(family="residual", width=4), GENERATED),
    ("float64", 12, 4, HRA, SpaceConfig(kind="offset")),
  ],
)
def test_every_task_alone(tmp_path, dtype, tasks, checked, adapter, space):
  study = Study(
    tmp_path, tasks=tasks, dtype=dtype, adapter=adapter, space=space
  )
  # Four numbers of one's own change few words.
  _assert_unlike(study, best_steps=2 if space == GENERATED else 3)
  with ThreadPoolExecutor(2) as pool:
    for each in [
      pool.submit(_assert_alone_is_joint, study, name, dtype=dtype)
      for name in study.names[:: tasks // checked]
    ]:
      each.result()
