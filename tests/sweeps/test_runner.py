"""Running a sweep: what is run, what is left alone, how it ends."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from hra import config_tree
from hra.config import Config, DataConfig, EvalConfig
from hra.errors import InputError, StorageError
from hra.files import locked, write_json
from hra.sweeps import plan, record, runner

TRAIN = """
import json, os, pathlib, signal, sys, time
folder, mode = pathlib.Path(sys.argv[1]), sys.argv[2]
def note(what):
  with open(folder / "calls", "a") as calls:
    calls.write(f"{what} {time.monotonic()}\\n")
note("train")
(folder / "metrics.jsonl").write_text("{}")
if mode == "fail":
  print("hra train: config.x: expected a, got b", file=sys.stderr)
  sys.exit(2)
if mode == "crash":
  raise RuntimeError("out of luck")
if mode == "die":
  os.kill(os.getpid(), signal.SIGKILL)
if mode == "hang":
  def stop(number, frame):
    note("saved")
    sys.exit(75)
  signal.signal(signal.SIGTERM, stop)
  note("ready")
  while True:
    time.sleep(0.05)
if mode == "late":
  def stop(number, frame):
    time.sleep(1)
    note("saved")
    sys.exit(75)
  signal.signal(signal.SIGTERM, stop)
  note("ready")
  while True:
    time.sleep(0.05)
if mode == "hangup":
  os.kill(os.getppid(), signal.SIGHUP)
  time.sleep(0.3)
if mode == "deaf":
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  note("ready")
  time.sleep(60)
if mode == "slow":
  time.sleep(0.4)
if mode == "environment":
  cores = sorted(os.sched_getaffinity(0))
  (folder / "seen.json").write_text(json.dumps([cores, dict(os.environ)]))
if mode == "corpus":
  made = pathlib.Path(sys.argv[3]) / "prepared" / "summary.json"
  note("finds" if made.exists() else "makes")
  time.sleep(0.3)
  made.parent.mkdir(parents=True, exist_ok=True)
  made.write_text("{}")
note("trained")
"""

EVALUATE = """
import json, pathlib, sys
folder, split, scoring, mode = sys.argv[1:]
folder = pathlib.Path(folder)
with open(folder / "calls", "a") as calls:
  calls.write("evaluate 0\\n")
if mode == "unscored":
  sys.exit(0)
overall = dict.fromkeys(("wer_low", "wer_high", "words", "utterances"), 1)
overall |= {"wer": 0.25, "backbone_wer": 0.5}
(folder / "results.json").write_text(json.dumps({
  "split": split, "scoring": json.loads(scoring), "overall": overall,
  "parameters": {"backbone": 9, "shared": 2, "per_task": 3},
}))
"""


WITHOUT_RATES = json.dumps(
  {"split": "test", "scoring": config_tree.to_dict(EvalConfig()), "overall": {}}
)


def _commands(modes):
  """Runs whose seed is named in `modes` behave like that."""

  def commands(run):
    mode = modes.get(run.config.seed, "work")
    scoring = json.dumps(config_tree.to_dict(run.config.evaluate))
    return {
      "train": [
        *(sys.executable, "-c", TRAIN),
        *(str(run.folder), mode, run.corpus),
      ],
      "evaluate": [
        *(sys.executable, "-c", EVALUATE),
        *(str(run.folder), run.split, scoring, mode),
      ],
    }

  return commands


def _sweep(folder, *axes, base=None, **given):
  return plan.make(
    base or Config(),
    experiment="mine.py",
    workdir=folder,
    axes=axes or ["seed=0,1,2"],
    **given,
  )


def _run(sweep, *, modes=None, jobs=1, only=()):
  out = io.StringIO()
  outcome = runner.run(
    sweep, jobs=jobs, out=out, commands=_commands(modes or {}), only=only
  )
  return outcome, out.getvalue()


def _calls(folder, name):
  path = folder / name / "calls"
  lines = path.read_text().splitlines() if path.exists() else []
  return [line.split()[0] for line in lines]


def _entries(folder):
  listed = json.loads((folder / "sweep.json").read_text())["runs"]
  return {entry["name"]: entry for entry in listed}


def test_every_run_is_trained_then_evaluated(tmp_path):
  outcome, told = _run(_sweep(tmp_path))
  assert outcome[:3] == (("seed=0", "seed=1", "seed=2"), (), ())
  for name in outcome.done:
    assert _calls(tmp_path, name) == ["train", "trained", "evaluate"]
    log = (tmp_path / name / "log.txt").read_text()
    assert log.count("$ ") == 2
  assert told.count("WER 25.0%") == 3
  entry = _entries(tmp_path)["seed=1"]
  assert entry["status"] == "done"
  assert entry["overrides"] == {"seed": "1"}
  assert entry["values"] == {"seed": 1}
  assert entry["results"]["overall"]["wer"] == 0.25
  assert entry["results"]["parameters"]["per_task"] == 3
  assert entry["seconds"] > 0


def test_what_is_done_stays_done_and_more_values_are_added(tmp_path):
  _run(_sweep(tmp_path))
  _run(_sweep(tmp_path, "seed=2,3"))
  for name in ("seed=0", "seed=1", "seed=2", "seed=3"):
    assert _calls(tmp_path, name) == ["train", "trained", "evaluate"]
  assert set(_entries(tmp_path)) == {f"seed={seed}" for seed in range(4)}
  _run(_sweep(tmp_path, "seed=0", "adapter.width=7"))
  entries = _entries(tmp_path)
  assert entries["seed=3"]["values"] == {"seed": 3, "adapter.width": 128}
  assert entries["adapter.width=7,seed=0"]["values"]["adapter.width"] == 7


def test_what_an_earlier_call_had_otherwise_is_listed(tmp_path):
  _run(_sweep(tmp_path, settings=["train.steps=5", "train.log_every=3"]))
  _run(_sweep(tmp_path, "seed=3", settings=["train.steps=6"]))
  assert {
    name: entry["values"] for name, entry in _entries(tmp_path).items()
  } == {
    **{f"seed={seed}": {"seed": seed, "train.steps": 5} for seed in range(3)},
    "seed=3": {"seed": 3, "train.steps": 6},
  }


def test_a_run_whose_folder_was_removed_is_forgotten(tmp_path):
  _run(_sweep(tmp_path))
  (tmp_path / "seed=1" / "asked.json").unlink()
  _run(_sweep(tmp_path, "seed=2"))
  assert set(_entries(tmp_path)) == {"seed=0", "seed=2"}


def test_a_failed_run_stops_no_other_and_is_tried_again(tmp_path):
  sweep = _sweep(tmp_path, "seed=0,1,2,3,4")
  modes = {0: "fail", 1: "crash", 2: "die", 3: "unscored"}
  outcome, told = _run(sweep, modes=modes)
  assert outcome.failed == ("seed=0", "seed=1", "seed=2", "seed=3")
  assert outcome.done == ("seed=4",)
  entries = _entries(tmp_path)
  errors = [entries[f"seed={seed}"]["error"] for seed in range(4)]
  assert errors[0] == "hra train: config.x: expected a, got b"
  assert errors[1] == "RuntimeError: out of luck"
  assert "SIGKILL" in errors[2]
  assert "results.json of 'test'" in errors[3]
  for seed, error in enumerate(errors):
    (line,) = [each for each in told.splitlines() if f"seed={seed} " in each]
    assert line.startswith("failed")
    assert error in line
    assert str(tmp_path / f"seed={seed}" / "log.txt") in line
  again, _ = _run(sweep)
  assert len(again.done) == 5
  assert _calls(tmp_path, "seed=4").count("train") == 1
  assert _calls(tmp_path, "seed=0").count("train") == 2
  # It was trained: only the evaluation was left.
  assert _calls(tmp_path, "seed=3").count("train") == 1
  assert all(each["error"] is None for each in _entries(tmp_path).values())


def test_another_split_is_only_evaluated(tmp_path):
  _run(_sweep(tmp_path, "seed=0"))
  _run(_sweep(tmp_path, "seed=0", split="dev"))
  assert _calls(tmp_path, "seed=0") == ["train", "trained", *["evaluate"] * 2]
  assert json.loads((tmp_path / "seed=0/results.json").read_text())[
    "split"
  ] == ("dev")


def test_other_scoring_makes_results_anew(tmp_path):
  _run(_sweep(tmp_path, "seed=0"))
  base = Config(evaluate=EvalConfig(confidence=0.5))
  _run(_sweep(tmp_path, "seed=0", base=base))
  assert _calls(tmp_path, "seed=0").count("evaluate") == 2
  _run(_sweep(tmp_path, "seed=0", base=base))
  assert _calls(tmp_path, "seed=0").count("evaluate") == 2


def test_old_scores_never_pass_for_new_ones(tmp_path):
  _run(_sweep(tmp_path, "seed=0"))
  changed = _sweep(tmp_path, "seed=0", settings=["evaluate.seed=5"])
  outcome, _ = _run(changed, modes={0: "fail"})
  assert outcome.failed == ("seed=0",)
  assert not (tmp_path / "seed=0" / "results.json").exists()


def test_settings_of_the_machine_leave_what_is_done(tmp_path):
  _run(_sweep(tmp_path, "seed=0"))
  _run(_sweep(tmp_path, "seed=0", settings=["data.threads=9", "mesh.fsdp=2"]))
  assert _calls(tmp_path, "seed=0").count("train") == 1


def test_a_folder_of_another_configuration_is_refused_before_a_start(tmp_path):
  _run(_sweep(tmp_path, "seed=1"))
  other = _sweep(tmp_path, "seed=0,1", settings=["train.steps=7"])
  with pytest.raises(InputError, match=r"seed=1: train.steps: .*400.*got 7"):
    _run(other)
  assert not (tmp_path / "seed=0").exists()
  # What was refused before its first step gives way.
  (tmp_path / "seed=1" / "metrics.jsonl").unlink()
  (tmp_path / "seed=1" / "results.json").unlink()
  assert len(_run(other)[0].done) == 2


def test_a_folder_that_something_else_began_is_refused(tmp_path):
  (tmp_path / "seed=1").mkdir()
  (tmp_path / "seed=1" / "config.json").write_text("{}")
  with pytest.raises(InputError, match="something else began"):
    _run(_sweep(tmp_path))


def test_no_more_runs_at_once_than_jobs(tmp_path):
  sweep = _sweep(tmp_path, "seed=0,1,2,3")
  modes = dict.fromkeys(range(4), "slow")
  _run(sweep, modes=modes, jobs=2)
  spans = []
  for run in sweep.runs:
    lines = (tmp_path / run.name / "calls").read_text().splitlines()
    times = [float(line.split()[1]) for line in lines[:2]]
    spans.append(times)
  together = [
    sum(start <= moment < end for start, end in spans) for moment, _ in spans
  ]
  assert max(together) == 2


@pytest.mark.skipif(
  not hasattr(os, "sched_getaffinity"), reason="no affinity here"
)
def test_runs_at_once_share_the_cores(tmp_path):
  modes = dict.fromkeys(range(2), "environment")
  _run(_sweep(tmp_path, "seed=0,1"), modes=modes, jobs=2)
  seen = [
    json.loads((tmp_path / f"seed={seed}" / "seen.json").read_text())
    for seed in (0, 1)
  ]
  mine = sorted(os.sched_getaffinity(0))
  if len(mine) > 1:
    assert sorted(seen[0][0] + seen[1][0]) == mine
    assert seen[0][1]["NPROC"] == str(len(seen[0][0]))
  _run(_sweep(tmp_path / "alone", "seed=0"), modes=modes, jobs=2)
  alone = json.loads((tmp_path / "alone" / "seed=0" / "seen.json").read_text())
  assert alone[0] == mine


def test_one_run_makes_the_speech_that_several_hear(tmp_path):
  base = Config(data=DataConfig(source="synthetic"))
  sweep = _sweep(tmp_path, "seed=0,1,2", base=base)
  _run(sweep, modes=dict.fromkeys(range(3), "corpus"), jobs=3)
  did = [_calls(tmp_path, run.name)[1] for run in sweep.runs]
  assert did == ["makes", "finds", "finds"]


def test_two_sweeps_do_not_work_in_one_folder(tmp_path):
  with (
    locked(tmp_path, fix=""),
    pytest.raises(InputError, match="at work in it"),
  ):
    _run(_sweep(tmp_path))
  assert len(_run(_sweep(tmp_path))[0].done) == 3


def test_refusals(tmp_path):
  with pytest.raises(InputError, match="--jobs"):
    _run(_sweep(tmp_path), jobs=-1)
  with pytest.raises(InputError, match="a local folder"):
    _run(_sweep("gs://bucket/sweep"))


def _when_ready(folder, names, then):
  """Does something once these runs are ready; a thread to join."""

  def wait():
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
      if all("ready" in _calls(folder, name) for name in names):
        break
      time.sleep(0.02)
    then()

  thread = threading.Thread(target=wait)
  thread.start()
  return thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_runs_save_and_they_go_on_later(tmp_path, number):
  sweep = _sweep(tmp_path)
  thread = _when_ready(
    tmp_path, ["seed=0", "seed=1"], lambda: os.kill(os.getpid(), number)
  )
  outcome, told = _run(sweep, modes=dict.fromkeys(range(3), "hang"), jobs=2)
  thread.join()
  assert outcome[:3] == ((), (), ("seed=0", "seed=1", "seed=2"))
  assert _calls(tmp_path, "seed=0") == ["train", "ready", "saved"]
  assert _calls(tmp_path, "seed=1") == ["train", "ready", "saved"]
  assert _calls(tmp_path, "seed=2") == []
  assert "stopping" in told
  entries = _entries(tmp_path)
  statuses = [entries[run.name]["status"] for run in sweep.runs]
  assert statuses == ["interrupted", "interrupted", "waiting"]
  assert len(_run(sweep)[0].done) == 3


def test_the_end_of_the_terminal_lets_the_runs_save(tmp_path):
  """Of which the kernel and the shell may both tell."""

  def twice():
    os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGHUP)

  before = signal.getsignal(signal.SIGHUP)
  thread = _when_ready(tmp_path, ["seed=0"], twice)
  outcome, _ = _run(_sweep(tmp_path), modes={0: "late"})
  thread.join()
  assert outcome.left == ("seed=0", "seed=1", "seed=2")
  assert _calls(tmp_path, "seed=0") == ["train", "ready", "saved"]
  assert signal.getsignal(signal.SIGHUP) == before


def test_under_nohup_the_end_of_the_terminal_is_nothing(tmp_path):
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    sweep = _sweep(tmp_path, "seed=0")
    modes = {0: "hangup"}
    assert _run(sweep, modes=modes)[0].done == ("seed=0",)
  finally:
    signal.signal(signal.SIGHUP, before)


def test_a_run_that_cannot_be_started_stops_no_other(tmp_path):
  """Its log is a folder; its command is no program."""
  (tmp_path / "seed=0" / "log.txt").mkdir(parents=True)
  commands = _commands({})

  def some(run):
    if run.config.seed == 1:
      return {"train": [str(tmp_path / "nothing")], "evaluate": ["x"]}
    return commands(run)

  out = io.StringIO()
  outcome = runner.run(_sweep(tmp_path), jobs=3, out=out, commands=some)
  assert outcome[:3] == (("seed=2",), ("seed=0", "seed=1"), ())
  entries = _entries(tmp_path)
  assert "log.txt: expected a file" in entries["seed=0"]["error"]
  assert "log.txt" not in entries["seed=1"]["error"]
  assert (
    "nothing: expected a process of hra train" in (entries["seed=1"]["error"])
  )


@pytest.mark.parametrize(
  "text",
  ["{", "{}", "[]", '{"split": "test"}', "b\xff", WITHOUT_RATES],
)
def test_damaged_results_are_that_run_s_failure(tmp_path, text):
  data = text.encode("latin-1")
  damaged = [
    sys.executable,
    "-c",
    f"open('results.json', 'wb').write({data!r})",
  ]
  commands = _commands({})

  def some(run):
    if run.config.seed == 0:
      script = f"import os; os.chdir({str(run.folder)!r}); {damaged[2]}"
      return {**commands(run), "evaluate": [*damaged[:2], script]}
    return commands(run)

  sweep = _sweep(tmp_path, "seed=0,1")
  outcome = runner.run(sweep, jobs=2, out=io.StringIO(), commands=some)
  assert outcome[:3] == (("seed=1",), ("seed=0",), ())
  assert "results.json: expected" in _entries(tmp_path)["seed=0"]["error"]


def test_when_the_list_cannot_be_written_the_runs_save(tmp_path, monkeypatch):
  """A run ends on a full disk; the other one saves, and that is listed."""

  def write(path, values):
    done = any(each["status"] == "done" for each in values.get("runs", ()))
    if done and "saved" not in _calls(tmp_path, "seed=0"):
      raise StorageError(path, expected="room", got="No space left on device")
    write_json(path, values)

  monkeypatch.setattr(record, "write_json", write)
  with pytest.raises(StorageError, match="No space left"):
    _run(_sweep(tmp_path, "seed=0,1"), modes={0: "hang", 1: "slow"}, jobs=2)
  assert _calls(tmp_path, "seed=0") == ["train", "ready", "saved"]
  assert _entries(tmp_path)["seed=0"]["status"] == "interrupted"


def test_what_a_killed_sweep_left_running_is_not(tmp_path):
  """Also of runs that are no more asked for."""
  _run(_sweep(tmp_path, "seed=0"))
  path = tmp_path / "sweep.json"
  path.write_text(path.read_text().replace('"done"', '"running"'))
  _run(_sweep(tmp_path, "seed=1"))
  assert _entries(tmp_path)["seed=0"]["status"] == "interrupted"


def test_a_backbone_that_is_not_there_is_refused_before_a_start(tmp_path):
  base = Config(backbone_path=str(tmp_path / "none"))
  with pytest.raises(
    InputError, match=r"seed=0: config\.backbone_path: .*tiny"
  ):
    _run(_sweep(tmp_path / "w", "seed=0", base=base))
  assert not (tmp_path / "w").exists()
  base.train.mode = "pretrain"
  base.adapter.family, base.data.grouping = "none", "pooled"
  assert len(_run(_sweep(tmp_path / "w", "seed=0", base=base))[0].done) == 1


def test_a_second_signal_kills(tmp_path):
  def twice():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)

  thread = _when_ready(tmp_path, ["seed=0"], twice)
  start = time.monotonic()
  with pytest.raises(KeyboardInterrupt):
    _run(_sweep(tmp_path), modes={0: "deaf"})
  thread.join()
  assert time.monotonic() - start < 15
  # Nothing of it is left: the folder is free.
  assert len(_run(_sweep(tmp_path))[0].done) == 3


def test_a_run_that_outlives_the_sweep_keeps_the_folder(tmp_path):
  script = textwrap.dedent(f"""
    import sys
    sys.path[:0] = [{str(Path(__file__).parent)!r}]
    import test_runner as tests
    from pathlib import Path
    folder = Path({str(tmp_path)!r})
    tests._run(tests._sweep(folder), modes={{0: "hang"}})
  """)
  with subprocess.Popen([sys.executable, "-c", script]) as parent:
    thread = _when_ready(tmp_path, ["seed=0"], parent.kill)
    parent.wait(timeout=90)
    thread.join()
  with pytest.raises(InputError, match="or one that it started, at work"):
    _run(_sweep(tmp_path))
  (orphan,) = [
    int(path.parent.name)
    for path in Path("/proc").glob("[0-9]*/cmdline")
    if str(tmp_path / "seed=0").encode() in _read(path)
  ]
  os.kill(orphan, signal.SIGTERM)
  deadline = time.monotonic() + 10
  while _read(Path(f"/proc/{orphan}/cmdline")) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert len(_run(_sweep(tmp_path))[0].done) == 3


def _read(path):
  try:
    return path.read_bytes()
  except (FileNotFoundError, ProcessLookupError):
    return b""


def test_damaged_notes_are_one_clear_line(tmp_path):
  _run(_sweep(tmp_path, "seed=0"))
  (tmp_path / "seed=0" / record.ASKED).write_text("{")
  with pytest.raises(InputError, match=r"asked\.json: expected JSON"):
    _run(_sweep(tmp_path, "seed=0"))


def test_six_runs_one_by_one_as_a_cluster_does_them(tmp_path):
  """One fails, one is interrupted, one is never started; then all is done."""
  sweep = _sweep(tmp_path, "seed=0,1,2,3,4,5")
  names = [run.name for run in sweep.runs]
  modes = {1: "fail", 2: "die", 3: "hang"}
  outcomes = []
  for name in names[:3]:
    outcomes.append(_run(sweep, modes=modes, only=[name])[0])
  thread = _when_ready(
    tmp_path, ["seed=3"], lambda: os.kill(os.getpid(), signal.SIGTERM)
  )
  outcomes.append(_run(sweep, modes=modes, only=["seed=3"])[0])
  thread.join()
  outcomes.append(_run(sweep, modes=modes, only=["seed=4"])[0])
  assert outcomes == [
    (("seed=0",), (), (), ()),
    ((), ("seed=1",), (), ()),
    ((), ("seed=2",), (), ("seed=2",)),
    ((), (), ("seed=3",), ()),
    (("seed=4",), (), (), ()),
  ]
  assert not (tmp_path / "sweep.json").exists()
  listed, _ = _run(sweep, jobs=0)
  assert listed[:3] == (
    ("seed=0", "seed=4"),
    ("seed=1", "seed=2"),
    ("seed=3", "seed=5"),
  )
  entries = _entries(tmp_path)
  statuses = [entries[name]["status"] for name in names]
  assert statuses == [
    *("done", "failed", "failed", "interrupted", "done", "waiting")
  ]
  assert entries["seed=1"]["error"].endswith("expected a, got b")
  assert entries["seed=0"]["seconds"] > 0
  assert not list(tmp_path.glob("*/status.json"))
  assert _calls(tmp_path, "seed=5") == []
  for name in names:
    _run(sweep, only=[name])
  assert _run(sweep, jobs=0)[0].done == tuple(names)
  assert _calls(tmp_path, "seed=0") == ["train", "trained", "evaluate"]


def test_each_run_has_one_process_at_work_and_the_sweep_none(tmp_path):
  sweep = _sweep(tmp_path)
  refusals = []

  def others():
    for only in (["seed=0"], ()):
      with pytest.raises(InputError, match="at work in it") as caught:
        _run(sweep, only=only)
      refusals.append(caught.value.where)
    with locked(tmp_path, fix="", shared=True):
      os.kill(os.getpid(), signal.SIGTERM)

  thread = _when_ready(tmp_path, ["seed=0"], others)
  outcome, _ = _run(sweep, modes={0: "hang"}, only=["seed=0"])
  thread.join()
  assert outcome.left == ("seed=0",)
  assert [Path(where).name for where in refusals] == ["seed=0", tmp_path.name]
  with (
    locked(tmp_path, fix=""),
    pytest.raises(InputError, match="at work in it"),
  ):
    _run(sweep, only=["seed=1"])


def test_a_run_waits_for_the_speech_that_another_process_makes(
  tmp_path, monkeypatch
):
  base = Config(data=DataConfig(source="synthetic"))
  sweep = _sweep(tmp_path, "seed=0,1", base=base)
  corpus = Path(sweep.runs[0].corpus)
  corpus.mkdir(parents=True)
  monkeypatch.setattr(runner, "_PATIENCE", 0.1)
  held = contextlib.ExitStack()
  held.enter_context(locked(corpus, fix="", name=".sweep.lock"))

  def make():
    time.sleep(0.5)
    (corpus / "prepared").mkdir()
    (corpus / "prepared" / "summary.json").write_text("{}")
    held.close()

  thread = threading.Thread(target=make)
  thread.start()
  _run(sweep, modes={0: "corpus"}, only=["seed=0"])
  thread.join()
  assert _calls(tmp_path, "seed=0")[1] == "finds"


def test_names_that_are_no_runs_are_refused(tmp_path):
  with pytest.raises(InputError, match=r"--only.*did you mean 'seed=2'"):
    _run(_sweep(tmp_path), only=["seed=22"])


@pytest.mark.parametrize(
  ("elapsed", "waiting", "typical", "jobs", "left"),
  [
    ([], 3, None, 1, None),
    ([4.0], 2, 10.0, 1, 26.0),
    ([4.0, 0.0], 2, 10.0, 2, 18.0),
    ([0.0], 0, 10.0, 4, 10.0),
    ([99.0], 0, 10.0, 1, 0.0),
  ],
)
def test_time_left(elapsed, waiting, typical, jobs, left):
  assert left == runner._left(
    elapsed, waiting=waiting, typical=typical, jobs=jobs
  )
