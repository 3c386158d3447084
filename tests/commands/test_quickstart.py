"""The whole main job, as a newcomer runs it; test_end_to_end.py is its fast twin."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_quickstart_adapts_every_speaker(tmp_path):
  workdir = tmp_path / "run"
  done = subprocess.run(
    [sys.executable, "-m", "hra.commands.quickstart", f"--workdir={workdir}"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  results = json.loads((workdir / "results.json").read_text())
  overall = results["overall"]
  assert len(results["tasks"]) >= 16
  assert 0.45 <= overall["backbone_wer"] <= 0.60
  assert overall["wer"] <= 0.62 * overall["backbone_wer"]
  assert (workdir / "report.html").stat().st_size > 10_000
  assert len(list((workdir / "submodels").glob("speaker-*"))) == 16
