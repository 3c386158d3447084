"""The experiments for LibriSpeech, small, on a made-up folder of its layout."""

import ast
import gzip
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile

from hra import config_tree, jobs, language_jobs, language_store, run, scoring
from hra.backbone import store
from hra.commands import configs
from hra.config import Config, PrepareConfig, SearchConfig
from hra.data.corpora.fields import Fields
from hra.data.dataset import open_split, split_names
from hra.data.prepare import prepare
from hra.data.tokenizer import Tokenizer

RATE = 16_000
UTTERANCES = {
  "train-clean-100": 8,
  "train-other-500": 8,
  "dev-clean": 3,
  "dev-other": 2,
  "test-clean": 4,
  "test-other": 5,
}
"""Of each subset."""
WORDS = ("MISTER", "QUILTER'S", "MANNER", "IS", "A", "GOSPEL", "FOR", "ALL")
PREPARED = PrepareConfig(kind="bpe", max_seconds=40.0, jobs=1)

PRETRAINED = (
  "data.utterances_per_task=4",
  "data.buckets=1",
  "data.eval_batch=8",
  "evaluate.bootstrap=100",
  "train.steps=3",
  "train.log_every=1",
  "train.eval_every=2",
  "train.shared.warmup_steps=1",
  "backbone.width=16",
  "backbone.layers=1",
  "backbone.subsampling_channels=8",
  "backbone.decoder.width=16",
  "backbone.decoder.embedding=8",
)
TRANSDUCER = (
  *PRETRAINED,
  "backbone.feed_forward=32",
  "backbone.decoder.joint=16",
)
SIZES = {
  "librispeech_las": (
    *PRETRAINED,
    "backbone.decoder.attention=8",
    "train.weight_noise_start=1",
    "train.shared.hold_steps=1",
  ),
  "librispeech_rnnt": TRANSDUCER,
  "librispeech_lm": (
    "language_model.width=16",
    "language_model.layers=1",
    "sentences.sentences_per_batch=4",
    "sentences.buckets=1",
    "train.steps=4",
    "train.log_every=1",
    "train.shared.warmup_steps=1",
  ),
  "multidomain_mix": (
    *TRANSDUCER,
    "data.multistyle.part=0.5",
    "data.multistyle.rooms.count=2",
    "data.multistyle.rooms.rt60_high=0.25",
  ),
}
"""All that is changed of the experiments, beside paths."""


class Trained(NamedTuple):
  """A run to its end."""

  parts: run.Parts
  state: Any
  backbone: store.StoredBackbone
  """As it is read from the folder that was exported."""


def _config(name: str, *paths: str) -> Config:
  config: Config = configs.load(configs.experiment(name))
  for assignment in (*SIZES[name], *paths):
    config_tree.override(config, assignment)
  return config


def _trained(name: str, data: Path, workdir: Path) -> Trained:
  # On a CPU, programs in bfloat16 take longer to compile.
  config = _config(name, f"data.path={data}", "backbone.dtype=float32")
  parts = run.assemble(config, workdir)
  state = jobs.train(parts, quiet=True)
  return Trained(parts, state, store.load(jobs.finish(parts, state)))


def _text(rng: np.random.Generator) -> str:
  return " ".join(rng.choice(WORDS, rng.integers(2, 6)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """LibriSpeech as it is unpacked, its language model's text, and a manifest of
  the same recordings by domain."""
  folder = tmp_path_factory.mktemp("librispeech")
  root = folder / "LibriSpeech"
  rng = np.random.default_rng(0)
  manifest = []
  for place, (subset, count) in enumerate(UTTERANCES.items()):
    chapter = f"{1000 + place}-{120_000 + place}"
    below = root / subset / chapter.replace("-", "/")
    below.mkdir(parents=True)
    split, domain = subset.split("-")[:2]
    lines = []
    for number in range(count):
      id, text = f"{chapter}-{number:04d}", _text(rng)
      # The first is the longest, so that all splits are of one shape; in the
      # shorter ones time warping has no room.
      seconds = rng.uniform(1.4, 1.8) if manifest else 1.9
      wave = rng.normal(0, 0.1, int(RATE * seconds))
      soundfile.write(below / f"{id}.flac", wave, RATE)
      lines.append(f"{id} {text}\n")
      told = {"audio_filepath": str(below / f"{id}.flac"), "text": text}
      manifest.append(json.dumps({**told, "split": split, "domain": domain}))
    (below / f"{chapter}.trans.txt").write_text("".join(lines))
  for name in ("BOOKS", "CHAPTERS", "LICENSE", "README", "SPEAKERS"):
    (root / f"{name}.TXT").write_text(f"{name}\n")
  (folder / "domains.jsonl").write_text("\n".join(manifest))
  books = "".join(f"{_text(rng)}\n" for _ in range(16))
  packed = gzip.compress(books.encode())
  (folder / "librispeech-lm-norm.txt.gz").write_bytes(packed)
  return folder


@pytest.fixture(scope="module")
def data(folder):
  prepare(folder / "LibriSpeech", folder / "data", config=PREPARED)
  return folder / "data"


@pytest.fixture(scope="module")
def las(data, folder):
  return _trained("librispeech_las", data, folder / "las")


@pytest.fixture(scope="module")
def words(data, folder):
  """The language model's folder."""
  config = _config(
    "librispeech_lm",
    f"tokenizer={data / 'tokenizer.model'}",
    f"sentences.text={folder / 'librispeech-lm-norm.txt.gz'}",
  )
  parts = language_jobs.assemble(config, folder / "words")
  return language_jobs.train(parts, quiet=True)


def _check_learned(trained: Trained, data: Path) -> None:
  """Losses of all steps are finite; the exported backbone is the data's."""
  lines = (trained.parts.workdir / "metrics.jsonl").read_text().splitlines()
  losses = [each["loss"] for each in map(json.loads, lines) if "loss" in each]
  assert len(losses) == trained.parts.config.train.steps
  assert np.isfinite(losses).all()
  tokenizer = Tokenizer.load(data / "tokenizer.model")
  assert trained.backbone.tokenizer.hash == tokenizer.hash
  assert trained.backbone.config.vocabulary == tokenizer.vocabulary


def _scored(trained: Trained, split: str, **search: Any) -> dict[str, Any]:
  """results.json of a split."""
  scoring.evaluate(
    trained.parts, trained.state, split=split, search=SearchConfig(**search)
  )
  results = json.loads((trained.parts.workdir / "results.json").read_text())
  assert results["split"] == split
  return results


def _check_scored(trained: Trained, **search: Any) -> None:
  """Both test sets, each by itself and whole."""
  for split, subset in (("test", "test-clean"), ("test_other", "test-other")):
    overall = _scored(trained, split, **search)["overall"]
    assert overall["utterances"] == UTTERANCES[subset]
    assert overall["wer"] > 0  # what was heard is noise


def test_subsets_become_splits(data):
  counted = {name: len(open_split(data, name)) for name in split_names(data)}
  assert counted == {
    "train": UTTERANCES["train-clean-100"] + UTTERANCES["train-other-500"],
    "dev": UTTERANCES["dev-clean"],
    "dev_other": UTTERANCES["dev-other"],
    "test": UTTERANCES["test-clean"],
    "test_other": UTTERANCES["test-other"],
  }


def test_las(las, data):
  _check_learned(las, data)
  _check_scored(las)


def test_the_language_model_has_the_labels_of_the_recogniser(words, las):
  stored = language_store.load(words, tokenizer=las.backbone.tokenizer)
  assert stored.config.vocabulary == las.backbone.config.vocabulary
  assert stored.about["steps"] == 4
  assert stored.about["train_sentences"] == 16


def test_the_language_model_reads_what_transcripts_say(data, folder):
  """In whatever case: no character of its text is left out."""
  tokenizer = Tokenizer.load(data / "tokenizer.model")
  packed = (folder / "librispeech-lm-norm.txt.gz").read_bytes()
  for line in gzip.decompress(packed).decode().splitlines():
    assert tokenizer.decode(tokenizer.encode(line)) == line.lower()


def test_las_is_fused_with_the_language_model(las, words):
  fused = {"language_model": str(words), "language_model_weight": 0.35}
  _check_scored(las, beam=8, coverage=0.05, **fused)


@pytest.fixture(scope="module")
def domains(folder):
  """Clean and other as two domains, prepared."""
  prepare(
    folder / "domains.jsonl",
    folder / "domains",
    config=PREPARED,
    fields=Fields(task="domain"),
  )
  return folder / "domains"


def test_domains_are_masked_or_noisy(domains, tmp_path, monkeypatch):
  """Rooms and noise for some of a batch, SpecAugment for all others."""
  monkeypatch.setenv("HRA_CACHE", str(tmp_path / "cache"))
  config = _config("multidomain_mix", f"data.path={domains}")
  parts = run.assemble(config, tmp_path / "run")
  assert set(parts.train_split.tasks) == {"clean", "other"}
  batches = list(jobs.make_loader(parts).batches(0))
  assert len(batches) == config.train.steps
  assert all(np.isfinite(batch.wave_KBS).all() for batch in batches)
  heard = np.concatenate([batch.lengths_KB > 0 for batch in batches])
  masked = np.concatenate([batch.augment_KB for batch in batches])
  assert 0 < masked.sum() < heard.sum()


def _commands(name: str) -> list[list[str]]:
  """What the docstring of an experiment says to run."""
  text = Path(configs.experiment(name)).read_text()
  docstring = ast.get_docstring(ast.parse(text)) or ""
  lines = docstring.replace("\\\n", " ").splitlines()
  return [
    shlex.split(line)[1:] for line in lines if line.startswith("    hra ")
  ]


def _sized(verb: str, *arguments: str) -> list[str]:
  """The command, of an experiment at its small size."""
  if verb != "train":
    return [verb, *arguments]
  (config,) = (each for each in arguments if each.startswith("--config="))
  sizes = SIZES[Path(config).stem]
  return [verb, *arguments, *(f"--config.{size}" for size in sizes)]


def test_docstrings_prepare_what_is_tested():
  for name in ("librispeech_las", "librispeech_rnnt", "multidomain_mix"):
    verb, *arguments = _commands(name)[0]
    assert verb == "prepare"
    assert f"--tokenizer_kind={PREPARED.kind}" in arguments
    limit = configs.load(configs.experiment(name)).data.max_seconds
    assert limit == PREPARED.max_seconds
    assert f"--max_seconds={limit:g}" in arguments


def test_docstrings_score_both_test_sets():
  for name in ("librispeech_las", "librispeech_rnnt"):
    clean, other = _commands(name)[-2:]
    assert (clean[0], other[0]) == ("evaluate", "evaluate")
    assert "--split=test_other" in other
    assert not any(each.startswith("--split") for each in clean)


@pytest.mark.slow
@pytest.mark.parametrize(
  "name", ["librispeech_las", "librispeech_rnnt", "multidomain_mix"]
)
def test_the_commands_of_docstrings_run(name, folder, tmp_path):
  """In the type that they compute in, where a user would stand."""
  experiments = Path(configs.experiment(name)).parent
  (tmp_path / "experiments").symlink_to(experiments)
  for source in ("LibriSpeech", "domains.jsonl"):
    (tmp_path / source).symlink_to(folder / source)
  (tmp_path / "data").mkdir()
  text = "librispeech-lm-norm.txt.gz"
  (tmp_path / "data" / text).symlink_to(folder / text)
  for verb, *arguments in _commands(name):
    if verb == "sweep":
      continue
    verb, *arguments = _sized(verb, *arguments)
    done = subprocess.run(
      [sys.executable, "-m", f"hra.commands.{verb}", *arguments],
      cwd=tmp_path,
      env={**os.environ, "HRA_CACHE": str(tmp_path / "cache")},
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr
  if name == "multidomain_mix":
    results = tmp_path / "runs" / "domains" / "results.json"
    tasks = json.loads(results.read_text())["tasks"]
    counted = {task: told["utterances"] for task, told in tasks.items()}
  else:
    run_folder = tmp_path / "runs" / name.removeprefix("librispeech_")
    counted = {}
    for part in ("clean", "other"):
      told = json.loads((run_folder / f"test_{part}.json").read_text())
      assert told["overall"]["wer"] > 0
      counted[part] = told["overall"]["utterances"]
  assert counted == {
    "clean": UTTERANCES["test-clean"],
    "other": UTTERANCES["test-other"],
  }
