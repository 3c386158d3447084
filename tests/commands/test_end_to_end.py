"""A user's own manifest: prepare -> train -> evaluate -> transcribe, by command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import corpus
import pytest

from hra import language_store
from hra.backbone import store
from hra.commands import configs
from hra.commands import main as cli

EXPERIMENT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import corpus

def get_config():
  return corpus.config(Path({data!r}), Path({backbone!r}))
"""


def _hra(verb: str, *arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, "-m", f"hra.commands.{verb}", *map(str, arguments)],
    env={**os.environ, "PYTHONPATH": str(Path(corpus.__file__).parent)},
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Prepared by the command, trained by the command."""
  folder = tmp_path_factory.mktemp("end_to_end")
  corpus.write_manifests(folder / "raw")
  data = folder / "data"
  done = _hra("prepare", f"--source={folder / 'raw'}", f"--out={data}")
  assert done.returncode == 0, done.stderr
  backbone = corpus.backbone_folder(folder, data)
  (folder / "experiment.py").write_text(
    EXPERIMENT.format(
      tests=str(Path(corpus.__file__).parent),
      data=str(data),
      backbone=str(backbone),
    )
  )
  done = _hra(
    "train",
    f"--config={folder / 'experiment.py'}",
    f"--workdir={folder / 'run'}",
    "--config.train.steps=4",
  )
  assert done.returncode == 0, done.stderr
  assert "compiling the step" in done.stdout
  return folder


def test_evaluate_writes_results_and_report(trained):
  copy = trained / "copy.json"
  done = _hra("evaluate", f"--workdir={trained / 'run'}", f"--json={copy}")
  assert done.returncode == 0, done.stderr
  results = json.loads((trained / "run" / "results.json").read_text())
  assert results == json.loads(copy.read_text())
  assert results["split"] == "test"
  for speaker in corpus.SPEAKERS:
    assert speaker in done.stdout
  page = (trained / "run" / "report.html").read_text()
  assert "bert/b" in page


def test_transcribe_prints_a_line_a_file(trained):
  files = sorted((trained / "raw" / "test").rglob("*.flac"))
  for task in ("--task=anna", "--task="):
    done = _hra("transcribe", f"--workdir={trained / 'run'}", task, *files)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(map(str, files))


def test_an_unknown_task_is_one_clear_line(trained):
  done = _hra(
    "transcribe", f"--workdir={trained / 'run'}", "--task=zoe", "x.wav"
  )
  assert done.returncode == 2
  assert done.stderr.count("\n") == 1
  assert "--task=zoe" in done.stderr
  assert "anna" in done.stderr


@pytest.mark.parametrize(
  ("verb", "arguments", "told"),
  [
    ("train", ["--config=missing.py", "--workdir=x"], "missing.py"),
    ("train", ["--workdir=x"], "--config"),
    ("evaluate", ["--workdir=/nowhere"], "/nowhere/config.json"),
    ("transcribe", [], "audio files"),
    ("transcribe", ["missing.wav"], "missing.wav"),
    ("prepare", ["--source=missing.jsonl", "--out=x"], "missing.jsonl"),
    ("report", ["--run=/nowhere"], "/nowhere"),
    ("quickstart", ["--config.adapter.widht=3"], "'width'"),
    ("quickstart", ["--config.adapter.width=wide"], "expected int"),
    ("quickstart", ["--config.adapter.family=hrq"], "'hra'"),
    ("quickstart", ["--wrokdir=x"], "wrokdir"),
    ("quickstart", ["stray"], "stray"),
  ],
)
def test_bad_input_is_one_clear_line(verb, arguments, told, tmp_path):
  done = subprocess.run(
    [
      sys.executable,
      "-c",
      "from hra.commands.main import run; run()",
      verb,
      *arguments,
    ],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2, done.stderr
  lines = [line for line in done.stderr.splitlines() if line.strip()]
  assert len(lines) == 1
  assert lines[0].startswith(f"hra {verb}: ")
  assert told in lines[0]


def test_a_manifest_line_that_is_not_json_is_named(tmp_path):
  manifest = tmp_path / "broken.jsonl"
  manifest.write_text('{"audio_filepath": "a.wav"\n')
  done = _hra("prepare", f"--source={manifest}", f"--out={tmp_path / 'out'}")
  assert done.returncode == 2
  assert "broken.jsonl:1" in done.stderr


def test_every_verb_has_help():
  for verb in cli.VERBS:
    done = _hra(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"hra {verb}: ")
    assert "  --" in done.stdout


def test_a_language_model_trains_by_command(tmp_path):
  """Of the bundled backbone's labels; a second call trains nothing."""
  (tmp_path / "text.txt").write_text("a cat sat\na dog sat\n" * 8)
  command = (
    "train",
    f"--config={configs.experiment('language_model')}",
    f"--workdir={tmp_path / 'run'}",
    f"--config.sentences.text={tmp_path / 'text.txt'}",
    f"--config.sentences.dev_text={tmp_path / 'text.txt'}",
    "--config.sentences.sentences_per_batch=4",
    "--config.language_model.width=8",
    "--config.train.steps=4",
  )
  done = _hra(*command)
  assert done.returncode == 0, done.stderr
  assert "dev perplexity" in done.stdout
  stored = language_store.load(
    tmp_path / "run" / "lm", tokenizer=store.load("tiny").tokenizer
  )
  assert stored.about["steps"] == 4
  done = _hra(*command)
  assert "nothing left to train" in done.stdout
  done = _hra("evaluate", f"--workdir={tmp_path / 'run'}")
  assert done.returncode == 2
  assert "one of a language model" in done.stderr
