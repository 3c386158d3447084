"""`hra convert`: what it prints, and that what it made hears and adapts."""

import subprocess
import sys
from pathlib import Path

import corpus
import jax
import numpy as np
import originals
import pytest
import whispers

from hra import submodels
from hra.data.audio import decode
from hra.evaluate.recognizer import load_backbone

SCRIPT = "from hra.commands.main import run_verb; run_verb({verb!r})"


def _run(verb, *arguments):
  return subprocess.run(
    [sys.executable, "-c", SCRIPT.format(verb=verb), *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
  )


def _whisper(folder):
  return whispers.save(folder, whispers.model())


def _w2v_bert(folder):
  return originals.save(folder, "w2v_bert", originals.model("w2v_bert"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return _w2v_bert(tmp_path_factory.mktemp("original"))


def test_converts_and_says_what_to_do_next(folder, tmp_path):
  out = tmp_path / "made"
  done = _run("convert", f"--source={folder}", f"--out={out}")
  assert done.returncode == 0, done.stderr
  assert "Wav2Vec2BertForCTC: 0.0M parameters (float32)" in done.stdout
  assert "label 0, the blank, is the original's id 3" in done.stdout
  assert f"--config.backbone_path={out}" in done.stdout
  assert "converting: 100%" in done.stderr
  backbone = load_backbone(str(out))
  wave = 0.1 * np.random.default_rng(0).standard_normal(16_000)
  (text,) = backbone.transcribe([wave.astype(np.float32)])
  assert set(text) <= set("abce' ")


def test_what_is_wrong_is_one_line(folder, tmp_path):
  done = _run("convert", f"--source={tmp_path}", f"--out={tmp_path / 'made'}")
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1].startswith(
    f"hra convert: {tmp_path}/config.json: expected a file, got no such file"
  )
  assert done.stdout == ""
  done = _run("convert", f"--out={tmp_path / 'made'}")
  assert "--source: expected a value" in done.stderr


EXPERIMENT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import corpus

def get_config():
  return corpus.config(Path({data!r}), Path({backbone!r}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
  ("original", "tokenizer", "flags"),
  [
    (_w2v_bert, "vocab.json", ()),
    (_whisper, "tokenizer.json", ("--config.adapter.stacks=both",)),
  ],
)
def test_submodels_of_it_are_trained_and_used(
  original, tokenizer, flags, tmp_path
):
  """From recordings on, spelt by the checkpoint's own tokenizer."""

  def ran(verb, *arguments):
    done = _run(verb, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout

  folder = original(tmp_path / "original")
  made, data, run = (tmp_path / name for name in ("made", "data", "run"))
  ran("convert", f"--source={folder}", f"--out={made}")
  corpus.write_manifests(tmp_path / "raw")
  ran(
    "prepare",
    f"--source={tmp_path / 'raw'}",
    f"--out={data}",
    f"--tokenizer={made}",
    "--unknown=drop",
  )
  assert (data / tokenizer).read_bytes() == (made / tokenizer).read_bytes()
  experiment = tmp_path / "experiment.py"
  experiment.write_text(
    EXPERIMENT.format(
      tests=str(Path(corpus.__file__).parent),
      data=str(data),
      backbone=str(made),
    )
  )
  ran(
    "train",
    f"--config={experiment}",
    f"--workdir={run}",
    "--config.train.steps=4",
    *flags,
  )
  recording = tmp_path / "raw" / "test" / "anna-0.wav"
  told = ran(
    "transcribe", f"--workdir={run}", "--task=anna", "--noguard", recording
  )
  anna = submodels.Store(run / "submodels")["anna"]
  (text,) = load_backbone(made).transcribe(
    [decode(recording)], [anna], guard=False
  )
  assert told == f"{recording}\t{text}\n"
  stacks = anna.row if flags else {"encoder": anna.row}
  assert stacks.keys() == ({"encoder", "decoder"} if flags else {"encoder"})
  for row in stacks.values():  # heads start at zero
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(row))
