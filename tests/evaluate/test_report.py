"""The HTML page: whole, self-contained, safe, and honest about its runs."""

import base64
import dataclasses
import hashlib
import html.parser
import json
import pathlib
import re
import struct
import subprocess
import sys

import pytest

from hra.config import EvalConfig
from hra.errors import InputError
from hra.evaluate import figures
from hra.evaluate.diff import Pair, align
from hra.evaluate.metrics import Transcript, score
from hra.evaluate.report import (
  MOST_CLIPS,
  write_report,
  write_sweep_report,
)
from hra.evaluate.runs import MADE_BY, check_run, read_run

_EVIL = "<script>alert('x')</script>\"'&"
_VOID = {"meta", "br", "line", "circle", "rect", "path", "link", "img", "input"}


def _wav(samples: int = 80) -> bytes:
  data = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16)
  data += struct.pack("<4sI", b"data", 2 * samples) + bytes(2 * samples)
  return b"RIFF" + struct.pack("<I", 4 + len(data)) + b"WAVE" + data


def _make_run(
  folder: pathlib.Path,
  *,
  tasks=("anna", "bert"),
  utterances: int = 6,
  per_task: int = 50,
  alone: str | None = "turn of light now",
  audio: str = "",
  reference: str = "turn the lights off",
  heard: str = "turn the lights of",
) -> pathlib.Path:
  folder.mkdir(parents=True)
  transcripts = [
    Transcript(
      id=f"{task}-{index}",
      task=task,
      reference=reference,
      hypothesis=heard if index % 2 else reference,
      backbone_hypothesis=alone,
      seconds=1.5,
      audio=audio or None,
    )
    for task in tasks
    for index in range(utterances)
  ]
  results = score(
    transcripts,
    EvalConfig(bootstrap=100),
    split="test",
    parameters={"backbone": 1000, "shared": 100, "per_task": per_task},
    adapter="hra",
    train_utterances=dict.fromkeys(tasks, 40),
  )
  (folder / "results.json").write_text(json.dumps(results))
  (folder / "transcripts.jsonl").write_text(
    "".join(json.dumps(dataclasses.asdict(item)) + "\n" for item in transcripts)
  )
  (folder / "tasks.json").write_text(json.dumps({"tasks": list(tasks)}))
  (folder / "config.json").write_text(
    json.dumps(
      {
        "git": "abc123",
        "versions": {"jax": "0.10.2"},
        "config": {"seed": 7, "train": {"rows": {"b1": 0.9}}},
      }
    )
  )
  (folder / "metrics.jsonl").write_text(
    "".join(
      json.dumps({"step": step, "loss": 9.0 / (1 + step)}) + "\n"
      for step in range(5)
    )
  )
  return folder


class _Page(html.parser.HTMLParser):
  """Collects elements and sees that they close in order."""

  def __init__(self, text: str):
    super().__init__()
    self.elements: list[tuple[str, dict[str, str | None]]] = []
    self.open: list[str] = []
    self.text = ""
    self.feed(text)
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag not in _VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] not in ("style", "script"):
      self.text += data

  def all(self, tag: str) -> list[dict[str, str | None]]:
    return [attributes for name, attributes in self.elements if name == tag]


def _page(runs, out: pathlib.Path) -> _Page:
  return _Page(pathlib.Path(write_report(runs, out)).read_text())


def test_a_page_tells_the_results(tmp_path):
  run = _make_run(tmp_path / "run")
  page = _page([run], tmp_path / "out" / "page.html")
  results = json.loads((run / "results.json").read_text())
  overall = results["overall"]
  for value in (overall["wer"], overall["backbone_wer"], overall["cer"]):
    assert f"{100 * value:.1f}" in page.text
  for text in ("anna", "bert", "Training loss", "0.10.2", "abc123", "rows.b1"):
    assert text in page.text
  assert "Development WER" not in page.text  # its key is absent
  assert results["normalizer"] in page.text
  assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "page.html"]


def test_a_page_needs_nothing_from_outside(tmp_path):
  run = _make_run(tmp_path / "run", audio="audio/a.wav")
  (run / "audio").mkdir()
  (run / "audio" / "a.wav").write_bytes(_wav())
  page = _page([run], tmp_path / "page.html")
  assert not page.all("link")
  assert not page.all("img")
  for _, attributes in page.elements:
    for name in ("src", "href", "xlink:href", "data", "poster"):
      target = attributes.get(name)
      assert target is None or target.startswith(("#", "data:"))
    assert not any(name.startswith("on") for name in attributes)
  text = (tmp_path / "page.html").read_text()
  assert "@import" not in text
  assert "url(" not in text


def test_the_policy_admits_the_one_script_by_its_hash(tmp_path):
  write_report([_make_run(tmp_path / "run")], tmp_path / "page.html")
  text = (tmp_path / "page.html").read_text()
  (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  assert f"script-src 'sha256-{digest}'" in text
  assert "default-src 'none'" in text


def test_names_and_transcripts_are_only_data(tmp_path):
  run = _make_run(
    tmp_path / _EVIL.replace("/", "_"),
    tasks=(_EVIL, "anna"),
    reference=f"said {_EVIL}",
    heard=f"heard {_EVIL}",
  )
  transcripts = (run / "transcripts.jsonl").read_text()
  assert "<script>" in transcripts
  results = json.loads((run / "results.json").read_text())
  results["adapter"] = results["split"] = _EVIL
  (run / "results.json").write_text(json.dumps(results))
  (run / "config.json").write_text(json.dumps({_EVIL: {_EVIL: _EVIL}}))
  other = _make_run(tmp_path / "other", per_task=9)
  page = _page([run, other], tmp_path / "page.html")
  assert len(page.all("script")) == 1
  assert _EVIL in page.text
  assert not any("onerror" in attributes for _, attributes in page.elements)
  assert all(
    attributes.get("aria-label", "ok") for _, attributes in page.elements
  )


def test_plots_and_tables_are_labelled(tmp_path):
  page = _page([_make_run(tmp_path / "run")], tmp_path / "page.html")
  assert all(head.get("scope") for head in page.all("th"))
  assert all(
    attributes.get("aria-label")
    for _, attributes in page.elements
    if attributes.get("role") in ("img", "region")
  )
  ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
  assert len(ids) == len(set(ids))
  for _, attributes in page.elements:
    for name in ("aria-labelledby", "aria-describedby"):
      assert attributes.get(name, ids[0]) in ids


def test_the_same_runs_give_the_same_bytes(tmp_path):
  run = _make_run(tmp_path / "run")
  first = write_report([run], tmp_path / "a.html").read_bytes()
  assert write_report([run], tmp_path / "b.html").read_bytes() == first


def test_several_runs_are_compared_best_first(tmp_path):
  worse = _make_run(
    tmp_path / "a" / "run", heard="none of it at all", per_task=50
  )
  better = _make_run(tmp_path / "b" / "run", per_task=100)
  page = _page([worse, better], tmp_path / "page.html")
  assert "2 runs compared" in page.text
  assert "WER by parameters per task" in page.text
  assert "Not like for like" not in page.text
  links = [link["href"] for link in page.all("a") if "run-" in link["href"]]
  assert links == ["#run-1", "#run-0"]
  assert str(worse) in page.text  # folders of one name are told apart
  assert str(better) in page.text


def test_runs_on_unlike_test_sets_are_flagged(tmp_path):
  runs = [
    _make_run(tmp_path / "a"),
    _make_run(tmp_path / "b", utterances=9),
  ]
  assert "Not like for like" in _page(runs, tmp_path / "page.html").text


def test_audio_is_embedded_whole_and_at_most_so_often(tmp_path):
  runs = [
    _make_run(
      tmp_path / name,
      audio="audio/a.wav",
      tasks=[f"t{index}" for index in range(9)],
      utterances=4,
    )
    for name in ("a", "b")
  ]
  for run in runs:
    (run / "audio").mkdir()
    (run / "audio" / "a.wav").write_bytes(_wav())
  clips = _page(runs, tmp_path / "page.html").all("audio")
  assert len(clips) == MOST_CLIPS
  head, data = clips[0]["src"].split(",")
  assert head == "data:audio/wav;base64"
  assert base64.b64decode(data) == _wav()


@pytest.mark.parametrize(
  "audio", ["../secret.wav", "{root}/secret.wav", "absent.wav", "config.json"]
)
def test_nothing_but_the_runs_own_recordings_is_embedded(tmp_path, audio):
  (tmp_path / "secret.wav").write_bytes(_wav())
  run = _make_run(tmp_path / "run", audio=audio.format(root=tmp_path))
  assert not _page([run], tmp_path / "page.html").all("audio")


def test_long_recordings_stay_out(tmp_path):
  run = _make_run(tmp_path / "run", audio="long.wav")
  (run / "long.wav").write_bytes(_wav(1 << 20))
  assert not _page([run], tmp_path / "page.html").all("audio")


def test_a_run_without_backbone_words_or_curves_still_has_a_page(tmp_path):
  run = _make_run(tmp_path / "run", alone=None, reference="", heard="")
  (run / "metrics.jsonl").write_text("")
  (run / "config.json").write_text("{}")
  page = _page([run, _make_run(tmp_path / "other")], tmp_path / "page.html")
  assert "Scored" in page.text


@pytest.mark.parametrize("name", MADE_BY)
def test_a_missing_file_is_named_with_the_command_that_makes_it(tmp_path, name):
  run = _make_run(tmp_path / "run")
  (run / name).unlink()
  verb = (
    "hra evaluate"
    if name in ("results.json", "transcripts.jsonl")
    else ("hra train")
  )
  with pytest.raises(InputError, match=f"{name}: .*{verb}"):
    check_run(run)
  with pytest.raises(InputError, match=name):
    write_report([run], tmp_path / "page.html")
  assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("results.json", "{", "results.json: expected a JSON object.*evaluate"),
    ("results.json", "{}", "one without .*split.*evaluate"),
    ("config.json", b"\xff", "config.json: .*utf-8"),
    ("transcripts.jsonl", '{"id": "1"}', "transcripts.jsonl:1"),
    ("metrics.jsonl", 'nonsense\n{"step": 1}\n', "metrics.jsonl:1"),
  ],
)
def test_damaged_files_are_one_clear_line(tmp_path, name, text, message):
  run = _make_run(tmp_path / "run")
  (run / name).write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(InputError, match=message) as caught:
    read_run(run)
  assert "\n" not in str(caught.value)


def test_runs_that_make_no_sense_are_refused(tmp_path):
  run = _make_run(tmp_path / "run")
  out = tmp_path / "page.html"
  with pytest.raises(InputError, match="at least one"):
    write_report([], out)
  with pytest.raises(InputError, match="each run once"):
    write_report([run, tmp_path / "run" / ".." / "run"], out)
  with pytest.raises(InputError, match="a run's folder"):
    write_report([tmp_path / "nowhere"], out)


def test_curves_take_a_resumed_steps_last_value(tmp_path):
  run = _make_run(tmp_path / "run")
  lines = [
    '{"step": 1, "loss": 5}',
    '{"step": 2, "loss": NaN}',
    '{"step": 3, "dev_wer": 0.5}',
    '{"step": 1, "loss": 4}',
    '{"step": 4, "loss": 3}',
    '{"step": 5, "lo',
  ]
  (run / "metrics.jsonl").write_text("\n".join(lines))
  loaded = read_run(run)
  assert loaded.curve("loss") == [(1, 4), (4, 3)]
  assert loaded.curve("dev_wer") == [(3, 0.5)]
  assert loaded.curve("absent") == []


def test_long_curves_are_thinned_but_keep_their_ends(tmp_path):
  run = _make_run(tmp_path / "run")
  (run / "metrics.jsonl").write_text(
    "".join(f'{{"step": {step}, "loss": {step}}}\n' for step in range(5001))
  )
  (chart,) = figures.curves(read_run(run))
  points = chart.series[0].path.removeprefix("M").split("L")
  assert len(points) <= figures.MOST_POINTS + 1
  assert points[0] == "0 100"
  assert points[-1].split()[0] == "100"
  assert chart.series[0].last == "5,000"


def test_axis_ends_on_round_numbers_around_the_values():
  axis = figures.axis(0.0, 0.77, percent=True)
  assert [tick.label for tick in axis.ticks] == ["0", "20", "40", "60", "80"]
  assert [tick.at for tick in axis.ticks] == [0, 25, 50, 75, 100]
  assert axis.at(0.2) == 25
  snug = figures.axis(1.0, 9.0, count=4, snug=True)
  assert [tick.label for tick in snug.ticks] == ["2", "4", "6", "8"]
  assert snug.at(1.0) == 0
  flat = figures.axis(3.0, 3.0)
  assert flat.low <= 3.0 <= flat.high


def test_dumbbells_keep_the_best_and_the_worst_of_many_tasks(tmp_path):
  tasks = [
    (
      f"t{index}",
      {
        "wer": 0.5,
        "backbone_wer": 0.5 - (index - 50) / 200,
        "difference": (index - 50) / 200,
        "wer_low": 0.4,
        "wer_high": 0.6,
      },
    )
    for index in range(101)
  ]
  plot = figures.dumbbells(tasks)
  assert plot is not None
  names = [row.name for row in plot.rows]
  assert len(names) == figures.MOST_ROWS
  assert plot.hidden == 101 - figures.MOST_ROWS
  assert {"t0", "t100"} <= set(names)
  assert "t50" not in names
  assert next(row for row in plot.rows if row.name == "t100").worse
  assert not next(row for row in plot.rows if row.name == "t0").worse


def test_trade_off_needs_two_sizes_and_keeps_their_order():
  def results(per_task: int, wer: float):
    return {
      "parameters": {"per_task": per_task},
      "overall": {"wer": wer, "wer_low": wer - 0.01, "wer_high": wer + 0.01},
    }

  same = [("a", results(64, 0.2)), ("b", results(64, 0.3))]
  assert figures.trade_off(same) is None
  plot = figures.trade_off([*same, ("c", results(6400, 0.1))])
  assert plot is not None
  small, _, large = plot.points
  assert 0 < small.x < large.x < 100
  assert small.y < large.y  # downward: the lower WER
  labels = [tick.label for tick in plot.x.ticks]
  assert labels == ["100", "1,000", "10,000"]


def test_align_shows_each_word_once_with_its_edit():
  assert align("a b c d", "a x c d e") == [
    Pair("equal", "a", "a"),
    Pair("substitute", "b", "x"),
    Pair("equal", "c", "c"),
    Pair("equal", "d", "d"),
    Pair("insert", "", "e"),
  ]
  assert align("a b", "b") == [Pair("delete", "a", ""), Pair("equal", "b", "b")]
  assert align("", "") == []


def _make_sweep(folder: pathlib.Path, entries) -> pathlib.Path:
  """Runs by (name, values, WER); None is one that failed."""
  folder.mkdir()
  listed = []
  for name, values, wer in entries:
    results = None
    if wer is not None:
      run = _make_run(folder / name)
      results = json.loads((run / "results.json").read_text())
      results["overall"] |= {"wer": wer, "wer_low": wer, "wer_high": wer}
    listed.append(
      {
        "name": name,
        "label": "",
        "values": values,
        "status": "failed" if wer is None else "done",
        "error": f"hra train: {_EVIL}" if wer is None else None,
        "results": results,
      }
    )
  (folder / "sweep.json").write_text(json.dumps({"runs": listed}))
  return folder


def test_a_sweep_has_one_table_and_one_plot(tmp_path):
  runs = [
    (f"w{width}{heads}", {"adapter.width": width, "adapter.heads": heads}, 0.4)
    for width in (16, 64)
    for heads in ("both", "personal", _EVIL)
  ]
  folder = _make_sweep(
    tmp_path / "widths",
    [*runs, ("lost", {"adapter.width": 8, "adapter.heads": "both"}, None)],
  )
  path = write_sweep_report(folder)
  assert path == folder / "report.html"
  page = _Page(path.read_text())
  assert "widths: 7 runs" in page.text
  assert "6 done; what varies: adapter.heads, adapter.width" in page.text
  assert f"failed: hra train: {_EVIL}" in page.text
  (plot,) = [
    attributes["aria-label"]
    for _, attributes in page.elements
    if (attributes.get("aria-label") or "").startswith("Word error rate by")
  ]
  assert "adapter.width" in plot
  assert plot.count("WER 40.0%") == 6
  assert page.text.count("WER 40.0%") == 6  # of the points' titles
  links = {link["href"] for link in page.all("a")} - {"#main"}
  sections = {f"#{item['id']}" for item in page.all("section") if "id" in item}
  assert links == sections
  assert len(links) == 6
  assert all(head.get("scope") for head in page.all("th"))
  assert len(page.all("script")) == 1
  again = write_sweep_report(folder, tmp_path / "again.html")
  assert again.read_bytes() == path.read_bytes()


def test_a_sweep_of_which_nothing_is_done_has_no_page(tmp_path):
  folder = _make_sweep(tmp_path / "sweep", [("lost", {"seed": 1}, None)])
  with pytest.raises(InputError, match="a finished run"):
    write_sweep_report(folder)
  assert not (folder / "report.html").exists()


def test_a_sweep_of_one_run_or_of_seeds_has_a_page(tmp_path):
  one = _make_sweep(tmp_path / "one", [("a", {"seed": 1}, 0.3)])
  assert "one: 1 run<" in write_sweep_report(one).read_text()
  seeds = [(f"seed={seed}", {"seed": seed}, 0.3) for seed in (0, 1)]
  folder = _make_sweep(tmp_path / "seeds", seeds)
  assert "seeds: 2 runs" in write_sweep_report(folder).read_text()


def test_the_command_writes_beside_the_run_and_prints_the_path(tmp_path):
  run = _make_run(tmp_path / "run")
  code = (
    "import sys; from absl import flags; from hra.commands import report;"
    "report.main(flags.FLAGS(sys.argv))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, f"--run={run}"],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == f"report: {run / 'report.html'}\n"
  assert (run / "report.html").read_text().startswith("<!doctype html>")
  lost = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=False
  )
  assert "--run=FOLDER" in lost.stderr
