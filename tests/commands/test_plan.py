"""`hra plan`: the table, the JSON, and what is wrong in a line."""

import json
import re
import subprocess
import sys

import corpus
import originals
import pytest

from hra.commands.main import VERBS

SCRIPT = "from hra.commands.main import run_verb; run_verb('plan')"


def _run(*arguments):
  return subprocess.run(
    [sys.executable, "-c", SCRIPT, *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
  )


def test_says_what_a_published_backbone_takes(tmp_path):
  out = tmp_path / "plan.json"
  done = _run(
    "--backbone=google/medasr",
    "--devices=8",
    "--tasks=1000",
    "--seconds=20",
    "--config.backbone.param_dtype=bfloat16",
    f"--json={out}",
  )
  assert done.returncode == 0, done.stderr
  told = json.loads(out.read_text())
  assert told["parameters"]["backbone"] == 105_256_704
  assert told["device_bytes"]["backbone"] == 2 * 105_256_704
  assert told["tasks"] == 1000
  assert told["temporary_bytes_are"] == "estimated"
  assert told["peak_bytes"] == told["temporary_bytes"] + told[
    "gathered_bytes"
  ] + sum(told["device_bytes"].values())
  assert told["step_flops_per_device"] * 8 == told["step_flops"]
  assert "105,256,704" in done.stdout
  assert re.search(r"frozen backbone +105,256,704 +200.8 MiB", done.stdout)
  assert "estimate" in done.stdout
  assert "plan" in VERBS


def test_a_folder_is_planned_before_and_after_it_is_converted(tmp_path):
  original = originals.save(
    tmp_path / "original", "w2v_bert", originals.model("w2v_bert")
  )
  data = corpus.prepared(tmp_path)
  backbone = corpus.backbone_folder(tmp_path, data)
  told = []
  for folder in (original, backbone):
    out = tmp_path / "plan.json"
    done = _run(
      f"--backbone={folder}", f"--config.data.path={data}", f"--json={out}"
    )
    assert done.returncode == 0, done.stderr
    told.append(json.loads(out.read_text()))
  assert [each["tasks"] for each in told] == [3, 3]
  assert {each["batch"]["seconds"] for each in told} == {0.72}
  assert told[0]["parameters"] != told[1]["parameters"]


@pytest.mark.parametrize(
  ("arguments", "line"),
  [
    (["--backbone=parakeet"], "did you mean 'nvidia/parakeet-ctc-1.1b'?"),
    (["--devices=3"], "config.data.tasks_per_batch: expected a multiple of"),
    (["--devices=8", "--config.mesh.data=3"], "axes that multiply to 8"),
    (["--config.data.path=nowhere"], "nowhere"),
    (["--tasks=0"], "tasks"),
  ],
)
def test_what_is_wrong_is_one_line(arguments, line):
  done = _run(*arguments)
  assert done.returncode == 2
  assert done.stdout == ""
  (told,) = done.stderr.splitlines()
  assert told.startswith("hra plan: ")
  assert line in told
