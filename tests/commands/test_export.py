"""`hra export` and `hra transcribe --submodel`: LoRA folders there and back."""

import subprocess
import sys
from pathlib import Path

import corpus
import loras
import newcomers
import pytest

from hra import submodels

SCRIPT = "from hra.commands.main import run_verb; run_verb({verb!r})"


def _run(verb, *arguments):
  return subprocess.run(
    [sys.executable, "-c", SCRIPT.format(verb=verb), *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
  )


def _ran(verb, *arguments):
  done = _run(verb, *arguments)
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A backbone, and a LoRA folder of its original."""
  folder = tmp_path_factory.mktemp("peft")
  loras.backbone(folder, "w2v_bert")
  loras.save(folder / "alice", loras.made("w2v_bert"))
  return folder


def test_a_lora_folder_becomes_a_file_and_comes_back(folder, tmp_path):
  backbone, store = folder / "backbone", tmp_path / "store"
  lora = folder / "alice"
  publish = (f"--store={store}", f"--backbone={backbone}")
  for _ in range(2):  # the same is no new version
    told = _ran("export", f"--submodel={lora}", "--task=zoe", *publish)
    assert told == "published 'zoe', version 1\n"
  assert submodels.Store(store)["zoe"].adapter.family == "lora"
  file = store / "zoe.safetensors"
  back = tmp_path / "back"
  _ran(
    "export", f"--submodel={file}", f"--out={back}", f"--backbone={backbone}"
  )
  before, after = map(loras.tensors_of, (lora, back))
  assert before.keys() == after.keys()
  assert all(before[name].equal(after[name]) for name in before)


def test_what_is_missing_is_one_line(folder, tmp_path):
  done = _run("export", f"--backbone={folder / 'backbone'}", "--out=x")
  assert done.returncode == 2
  assert "or --submodel=PATH, got nothing" in done.stderr
  assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
  ("family", "fields"),
  [
    ("w2v_bert", ("sites=attention.query,attention.value",)),
    (
      "whisper",
      (
        "sites=attention.query,attention.value,cross_attention.query,"
        "cross_attention.value",
        "stacks=both",
      ),
    ),
  ],
)
def test_lora_of_peft_from_folder_to_folder(family, fields, tmp_path):
  """Trained on for a run's tasks and for who joins, exported, and heard."""
  loras.backbone(tmp_path, family)
  backbone = tmp_path / "backbone"
  lora = loras.save(tmp_path / "alice", loras.made(family))
  corpus.write_manifests(tmp_path / "raw")
  data, run, peft = (tmp_path / name for name in ("data", "run", "peft"))
  _ran(
    "prepare",
    f"--source={tmp_path / 'raw'}",
    f"--out={data}",
    f"--tokenizer={backbone}",
    "--unknown=drop",
  )
  experiment = tmp_path / "experiment.py"
  experiment.write_text(
    f"""
import sys
sys.path.insert(0, {str(Path(corpus.__file__).parent)!r})
from pathlib import Path
import corpus

def get_config():
  return corpus.config(Path({str(data)!r}), Path({str(backbone)!r}))
"""
  )
  _ran(
    "train",
    f"--config={experiment}",
    f"--workdir={run}",
    f"--config.train.rows_from={lora}",
    "--config.data.tasks=anna",
    "--config.data.tasks_per_batch=1",
    *(
      f"--config.adapter.{field}"
      for field in (
        "family=lora",
        "heads=personal",
        "width=2",
        "alpha=8",
        *fields,
      )
    ),
  )
  _ran(
    "enroll",
    f"--workdir={run}",
    f"--source={newcomers.write(tmp_path / 'new')}",
    f"--start={lora}",
    "--steps=2",
    "--unguarded",
    "--config.prepare.unknown=drop",
  )
  recording = tmp_path / "raw" / "test" / "anna-0.wav"
  for task in ("anna", "zoe"):
    _ran("export", f"--workdir={run}", f"--task={task}", f"--out={peft / task}")
    loras.loaded(family, peft / task)
    of_run = _ran(
      "transcribe", f"--workdir={run}", f"--task={task}", "--noguard", recording
    )
    of_peft = _ran(
      "transcribe",
      f"--backbone={backbone}",
      f"--submodel={peft / task}",
      recording,
    )
    assert of_run == of_peft
