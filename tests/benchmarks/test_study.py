"""The study's one command: which runs there are, and a trivial scale end to end."""

import dataclasses
import json
import types

import pytest
import study
import study_arms as arms
import study_page as page
import study_runs as runs
import study_worker
from etils import epath

from hra.backbone import store
from hra.commands import configs
from hra.errors import InputError, Interrupted
from hra.sharding import make_mesh
from hra.sweeps import record

_EVALUATION = (arms.MULTI, arms.RECURRENCE, arms.ALONE)
_FEW = (
  "synthetic.speakers=3",
  "synthetic.test_utterances=2",
  "train.eval_every=2",
)
_FEW_OF_EACH = ("synthetic.train_utterances=4", "synthetic.dev_utterances=2")
TINY = arms.Scale(
  name="study_tiny",
  command="python benchmarks/study.py",
  seeds=(0,),
  labels=("middle", "high"),
  arms={
    arms.MULTI: ("hra-32", "residual-8"),
    arms.SINGLE: (),
    arms.RECURRENCE: ("no-recurrence",),
    arms.TRAINING: ("embedding", "shared-only"),
    arms.NEWCOMERS: (
      *("row-5", "embedding-5", "mean-embedding", "shared-only"),
      "nearest-embedding-5",
    ),
  },
  settings={
    **dict.fromkeys(_EVALUATION, (*_FEW, *_FEW_OF_EACH, "train.steps=4")),
    arms.TRAINING: (*_FEW, *_FEW_OF_EACH, "train.steps=2"),
    arms.NEWCOMERS: (*_FEW, "train.steps=4"),
  },
  alone=2,
  backbone="tiny",
)


def made(tmp_path, scale=arms.FULL, questions=arms.QUESTIONS):
  return arms.Study(epath.Path(tmp_path), scale, questions)


def job(asked, arm, *, label, seed=0, split="dev", rates=None):
  rates = rates or {}
  return runs.job(asked, arm, seed=seed, label=label, split=split, rates=rates)


def pretend(each, *, errors):
  """A run that was trained and judged on dev."""
  folder = each.run.folder
  record.ask(each.run, needs="all")
  record.note_trained(each.run)
  dev = {"substitutions": errors, "deletions": 0, "insertions": 0}
  told = {"tasks": {"a": {"verdict": "better", "dev": dev}}}
  (folder / "verdicts.json").write_text(json.dumps(told))


def test_the_full_study_has_the_arms_of_the_readme(tmp_path):
  found = arms.needed(made(tmp_path))
  by_experiment = {
    experiment: [name for where, name in found if where == experiment]
    for experiment in dict.fromkeys(where for where, _ in found)
  }
  assert {name: len(each) for name, each in by_experiment.items()} == {
    arms.MULTI: 20,
    arms.SINGLE: 7,
    arms.RECURRENCE: 4,
    arms.TRAINING: 3,
    arms.NEWCOMERS: 4 * 4 + 2 + 4 * 2,
  }
  for arm in found.values():
    assert len(arm.rates) == 5 or not arm.tunable


def test_a_question_takes_only_the_arms_that_it_needs(tmp_path):
  assert set(arms.needed(made(tmp_path, questions="c"))) == {
    (arms.MULTI, "residual-8")
  }
  recurrence = arms.needed(made(tmp_path, questions="d"))
  assert (arms.MULTI, "hra-32") in recurrence
  assert len(recurrence) == 5


def test_speakers_of_a_seed_are_made_once_for_all_experiments(tmp_path):
  asked = made(tmp_path)
  found = arms.needed(asked)
  corpora = {
    job(asked, found[key], label="low", seed=seed).run.corpus
    for key in ((arms.MULTI, "hra-8"), (arms.SINGLE, "bitfit"))
    for seed in (0, 1)
  }
  alone = arms.one_by_one(asked, "low")
  corpora |= {job(asked, arm, label="low").run.corpus for arm in alone}
  assert len(corpora) == 2


def test_rates_of_an_arm_are_done_by_one_process(tmp_path):
  asked = made(tmp_path)
  found = arms.needed(asked)
  first = [arm for arm in found.values() if not arm.parent]
  todo = runs.tuning(asked, first, rates={})
  assert len(todo) == 3 * (20 + 7 + 4 + 3 + 1)
  assert {each.run.split for each in todo} == {"dev"}
  assert {each.seed for each in todo} == {0}
  chains = runs._chains(todo)
  assert len(chains) == 20 + 7 + 4 + 3 + 1
  for chain in chains:
    assert [each.label for each in chain] == ["low", "middle", "high"]
    assert len({each.arm.key for each in chain}) == 1
    for each in chain[:-1]:  # the last is asked for when its process starts
      assert (each.run.folder / record.ASKED).exists()


def test_budgets_of_a_method_take_the_rate_of_one_and_one_process(tmp_path):
  asked = made(tmp_path)
  found = arms.needed(asked)
  parents = {key: "low" for key in found if key[0] == arms.TRAINING}
  heads = [found[arms.NEWCOMERS, f"head-{size}"] for size in (5, 10, 20, 40)]
  assert [arm.name for arm in heads if arm.tuned] == ["head-20"]
  for label, errors in (("low", 7), ("middle", 3), ("high", 9)):
    each = job(asked, heads[2], label=label, rates=parents)
    pretend(each, errors=errors)
  chosen = runs.choose(asked, heads, rates=parents, known={})
  assert chosen == {arm.key: "middle" for arm in heads}
  todo = [
    job(asked, arm, label="middle", seed=seed, rates=parents)
    for arm in heads
    for seed in (1, 2)
  ]
  chains = runs._chains(todo)
  assert [[each.seed for each in chain] for chain in chains] == [
    [1] * 4,
    [2] * 4,
  ]


def test_the_rate_of_fewest_errors_is_chosen_and_of_equals_the_lower():
  rates = {"low": 1.0, "middle": 2.0, "high": 3.0}
  assert runs.lowest({"low": 5, "middle": 4, "high": 4}, rates=rates) == (
    "middle"
  )
  assert runs.lowest({"high": 4, "middle": 5, "low": 4}, rates=rates) == "low"


def test_an_arm_is_chosen_when_all_its_rates_are_judged(tmp_path):
  asked = made(tmp_path)
  arm = arms.needed(asked)[arms.MULTI, "hra-8"]
  for label, errors in (("low", 7), ("middle", 3)):
    pretend(job(asked, arm, label=label), errors=errors)
  assert runs.choose(asked, [arm], rates={}, known={}) == {}
  pretend(job(asked, arm, label="high"), errors=9)
  chosen = runs.choose(asked, [arm], rates={}, known={})
  assert chosen == {arm.key: "middle"}


@pytest.mark.parametrize(
  ("errors", "more", "chosen"),
  [
    ({"low": 7, "middle": 3, "high": 9}, None, "middle"),
    ({"low": 3, "middle": 4, "high": 9}, ("lowest", 2), "lowest"),
    ({"low": 3, "middle": 4, "high": 9}, ("lowest", 5), "low"),
    ({"low": 7, "middle": 5, "high": 4}, ("highest", 3), "highest"),
  ],
)
def test_a_rate_beyond_is_tried_where_the_best_is_outermost(
  tmp_path, errors, more, chosen
):
  asked = made(tmp_path)
  arm = arms.needed(asked)[arms.MULTI, "hra-8"]
  for label, count in errors.items():
    pretend(job(asked, arm, label=label), errors=count)
  left = [
    each.label
    for each in runs.tuning(asked, [arm], rates={})
    if runs.is_left(each)
  ]
  if more is not None:
    assert left == [more[0]]
    assert runs.choose(asked, [arm], rates={}, known={}) == {}
    pretend(job(asked, arm, label=more[0]), errors=more[1])
  else:
    assert left == []
  assert runs.choose(asked, [arm], rates={}, known={}) == {arm.key: chosen}


def test_a_tuned_run_stays_tuned_when_test_has_taken_the_place_of_dev(tmp_path):
  asked = made(tmp_path)
  arm = arms.needed(asked)[arms.MULTI, "hra-8"]
  each = job(asked, arm, label="low")
  pretend(each, errors=1)
  scoring = dataclasses.asdict(each.run.config.evaluate)
  told = {"split": "test", "scoring": scoring}
  (each.run.folder / "results.json").write_text(json.dumps(told))
  # Were it to be done again, a process would be started.
  assert runs.execute(asked, [each], at_once=1, out=None) == []
  assert runs.is_done(job(asked, arm, label="low", split="test"))


def test_known_rates_serve_where_none_are_tuned_else_the_middle(tmp_path):
  asked = made(tmp_path, arms.SMALL)
  found = arms.needed(asked)
  some = [found[arms.MULTI, "hra-8"], found[arms.MULTI, "bitfit"]]
  known = {(arms.MULTI, "hra-8"): "high", (arms.MULTI, "full"): "low"}
  assert runs.choose(asked, some, rates={}, known=known) == {
    (arms.MULTI, "hra-8"): "high",
    (arms.MULTI, "bitfit"): "middle",
  }
  assert runs.tuning(asked, some, rates={}) == []


def test_a_newcomer_on_another_parent_is_another_run(tmp_path):
  asked = made(tmp_path)
  arm = arms.needed(asked)[arms.NEWCOMERS, "embedding-5"]
  key = (arms.TRAINING, "embedding")
  runs_by_parent = [
    job(asked, arm, label="low", rates={key: label})
    for label in ("low", "high")
  ]
  parents = {each.command[1].rpartition("/")[2] for each in runs_by_parent}
  assert parents == {"embedding-low", "embedding-high"}
  pretend(runs_by_parent[0], errors=1)
  (runs_by_parent[0].run.folder / "metrics.jsonl").write_text("{}\n")
  assert record.check(runs_by_parent[0].run) == "evaluation"
  with pytest.raises(InputError, match="learning_rate"):
    record.check(runs_by_parent[1].run)


def test_methods_for_newcomers_have_the_same_steps_and_evaluations(tmp_path):
  asked = made(tmp_path)
  found = arms.needed(asked)
  rates = {key: "low" for key in found if key[0] == arms.TRAINING}
  row, head, embedding = (
    job(asked, found[arms.NEWCOMERS, name], label="low", rates=rates).run.config
    for name in ("row-10", "head-10", "embedding-10")
  )
  assert row.train.shared_part == 0  # best rows count from the start
  assert row.train == head.train
  rate = embedding.train.rows.learning_rate
  assert rate == pytest.approx(10 * row.train.rows.learning_rate)
  embedding.train.rows.learning_rate = row.train.rows.learning_rate
  assert row.train == embedding.train
  assert row.synthetic == head.synthetic == embedding.synthetic


def test_half_an_hour_trains_the_speakers_alone_whom_it_trains_jointly(
  tmp_path,
):
  asked = made(tmp_path, arms.SMALL)
  joint, *alone = [
    job(asked, arm, label="middle").run.config
    for arm in arms.one_by_one(asked, "middle")
  ]
  assert len(alone) == 4
  assert joint.data.tasks == tuple(each.data.tasks[0] for each in alone)
  assert joint.data.tasks_per_batch == 4
  for each in alone:
    assert each.train == joint.train
    assert each.adapter == joint.adapter
    assert each.synthetic == joint.synthetic


def test_all_scales_stand_on_one_backbone_and_share_no_run(tmp_path):
  key = (arms.MULTI, "hra-8")
  full, small = (
    job(each, arms.needed(each)[key], label="low").run
    for each in (made(tmp_path), made(tmp_path, arms.SMALL))
  )
  assert full.folder != small.folder
  assert full.config.backbone_path == small.config.backbone_path
  mesh = make_mesh(full.config.mesh)
  computed = full.config.backbone
  stored = store.load(full.config.backbone_path, computed=computed, mesh=mesh)
  declared = configs.load(arms.experiment_path("backbone")).backbone
  for field in ("width", "layers", "heads", "feed_forward", "kernel"):
    assert getattr(stored.config, field) == getattr(declared, field)


def test_an_unknown_question_is_refused():
  assert study._questions(["c", "a"]) == "ac"
  with pytest.raises(InputError, match="--only"):
    study._questions(["ab"])


def test_cost_adds_up_over_processes(tmp_path):
  one, other = epath.Path(tmp_path), epath.Path(tmp_path) / "other"
  other.mkdir()

  def noted(folder):
    return json.loads((folder / study_worker.COST).read_text())

  spent = study_worker.Spent()
  for count in (1, 2):
    with pytest.raises(ZeroDivisionError), spent.noted(one):
      raise ZeroDivisionError
    assert noted(one)["processes"] == count
  start = noted(one)["cpu_seconds"]
  assert start > 0
  with spent.noted(other):
    pass
  assert 0 <= noted(other)["cpu_seconds"] < start  # its start was paid for


def test_a_page_can_be_written_before_anything_is_complete(tmp_path):
  pytest.importorskip("matplotlib")
  out = tmp_path / "docs"
  asked = made(tmp_path)
  page.write(asked, {}, alone=[], out=out)
  told = json.loads((out / "study.json").read_text())
  assert len(told["missing"]) == len(arms.needed(asked))
  assert (out / "study.md").read_text().count("not run.") == 5 + 4


def test_a_question_asked_alone_leaves_what_is_said_of_the_others(tmp_path):
  asked = made(tmp_path, questions="b")
  backbone = {"fingerprint": "one", "dev": None}
  empty = dict.fromkeys(("a", "a_both", "b", "c", "d", "e"))
  before = {
    "backbone": backbone,
    "arms": {arms.MULTI: {"hra-8": "kept"}, arms.NEWCOMERS: {"row-5": "old"}},
    "cost": {arms.MULTI: "kept", arms.NEWCOMERS: "old"},
    "questions": {**empty, "a": "kept", "a_both": "kept", "b": "old"},
    "missing": ["multi_task/full", "newcomers/row-40"],
    "measured": {"a": "then", "b": "then"},
  }
  found = {
    "backbone": backbone,
    "arms": {arms.NEWCOMERS: {"row-5": "new"}},
    "cost": {arms.NEWCOMERS: "new"},
    "questions": {**empty, "b": "new"},
    "missing": ["newcomers/head-5"],
    "measured": {"b": "now"},
  }
  merged = page.merged(found, before, asked)
  assert merged["arms"] == {
    arms.MULTI: {"hra-8": "kept"},
    arms.NEWCOMERS: {"row-5": "new"},
  }
  assert merged["cost"] == {arms.MULTI: "kept", arms.NEWCOMERS: "new"}
  wanted = {**empty, "a": "kept", "a_both": "kept", "b": "new"}
  assert merged["questions"] == wanted
  assert merged["missing"] == ["newcomers/head-5", "multi_task/full"]
  assert merged["measured"] == {"a": "then", "b": "now"}


def test_asking_one_question_keeps_arms_that_another_shares_with_it(tmp_path):
  """(c) and (d) each need an arm of (a)."""
  hra, row, none = "hra-32", "residual-8", {}
  before = {
    "arms": {arms.MULTI: {hra: "old", row: "old", "full": "old"}},
    "cost": {arms.MULTI: "old", arms.ALONE: "old"},
    "questions": {"a": "old", "c": None, "d": "old"},
    "missing": ["multi_task/bitfit"],
    "measured": {"a": "then", "d": "then"},
  }
  found = {
    "arms": {arms.MULTI: {row: "new"}},
    "cost": {arms.MULTI: "new"},
    "questions": {"a": None, "c": "new", "d": None},
    "missing": [],
    "measured": {"c": "now"},
  }
  merged = page.merged(found, before, made(tmp_path, questions="c"))
  assert merged["arms"] == {arms.MULTI: {hra: "old", row: "new", "full": "old"}}
  assert merged["questions"] == {"a": "old", "c": "new", "d": "old"}
  assert merged["missing"] == ["multi_task/bitfit"]
  assert merged["cost"] == {arms.MULTI: "new"}
  other = {**found, "questions": none, "measured": none}
  kept = page.merged(other, before, made(tmp_path, questions="b"))
  assert kept["cost"][arms.ALONE] == "old"


def test_no_question_is_answered_that_is_not_asked(tmp_path):
  told = page._questions(made(tmp_path, questions="d"), {}, alone=[])
  assert set(told) == {*"abcde", *arms.EXPLORED}
  assert set(told.values()) == {None}


def test_figures_of_two_backbones_do_not_come_to_one_page(tmp_path):
  path = tmp_path / "study.json"
  path.write_text(json.dumps({"backbone": {"fingerprint": "another"}}))
  with pytest.raises(InputError, match="those on another"):
    page.check(made(tmp_path, questions="ab"), out=tmp_path)
  page.check(made(tmp_path), out=tmp_path)  # which replaces all of it
  path.unlink()
  page.check(made(tmp_path, questions="ab"), out=tmp_path)


def test_a_run_that_fails_stops_no_other_of_its_process(
  tmp_path, monkeypatch, capsys
):
  folders = [tmp_path / name for name in ("bad", "good")]
  for folder in folders:
    folder.mkdir()
  done = []

  def do(folder):
    if folder.name == "bad":
      raise InputError(folder, expected="a run", got="none")
    done.append(folder.name)

  given = types.SimpleNamespace(folders=list(map(str, folders)), split="test")
  monkeypatch.setattr(study_worker, "flags", types.SimpleNamespace(FLAGS=given))
  monkeypatch.setattr(study_worker, "_do", do)
  with pytest.raises(SystemExit) as ended:
    study_worker.main([])
  assert ended.value.code == 1
  assert done == ["good"]
  assert "expected a run" in capsys.readouterr().err


def test_what_is_tuned_is_known_also_after_an_interruption(
  tmp_path, monkeypatch
):
  asked = made(tmp_path, questions="c")
  arm = arms.needed(asked)[arms.MULTI, "residual-8"]
  for label in ("low", "middle", "high"):
    pretend(job(asked, arm, label=label), errors=int(label != "middle"))
  conductor = study.Conductor(asked, at_once=1)

  def interrupted(*arguments, **options):
    raise Interrupted("stopped")

  monkeypatch.setattr(runs, "execute", interrupted)
  with pytest.raises(Interrupted):
    conductor.conduct()
  assert list(conductor.scored()) == [arm.key]


@pytest.mark.slow
def test_the_study_runs_from_end_to_end_and_nothing_twice(
  tmp_path, capsys, monkeypatch
):
  pytest.importorskip("matplotlib")
  out = tmp_path / "docs"
  asked = made(tmp_path / "runs", TINY)
  study.study(asked, at_once=2, partial=False, out=out)
  told = json.loads((out / "study_tiny.json").read_text())
  assert told["missing"] == []
  assert {name: sorted(each) for name, each in told["arms"].items()} == {
    name: sorted(each) for name, each in TINY.arms.items() if each
  }
  assert told["questions"]["c"]["relative"] < 1e-3
  newcomers = told["arms"][arms.NEWCOMERS]
  assert newcomers["embedding-5"]["parameters"]["per_task"] == 16
  assert newcomers["shared-only"]["parameters"]["per_task"] == 0
  rates = {each["frozen"]["wer"] for each in newcomers.values()}
  assert len(rates) == 1  # one test split for all
  for name in ("parameters", "recordings", "alone", "recurrence"):
    assert (out / "study_tiny" / f"{name}.png").exists()
  pages = (out / "study_tiny.md").read_text()
  assert pages.count("not run.") == 1 + 4  # (e), and what is explored

  def refused(*arguments, **options):
    raise AssertionError("a run was started again")

  capsys.readouterr()
  monkeypatch.setattr(runs.runner, "run", refused)
  study.study(asked, at_once=2, partial=False, out=out)
  assert (out / "study_tiny.md").read_text() == pages


@pytest.mark.slow
def test_an_arm_that_fails_is_named_and_stops_no_other(tmp_path, monkeypatch):
  pytest.importorskip("matplotlib")
  monkeypatch.setattr(study, "known_rates", dict)  # whatever docs/ has chosen
  out = tmp_path / "docs"
  few = {**TINY.arms, arms.MULTI: ("hra-32", "bitfit")}
  scale = TINY._replace(arms=few, labels=())
  asked = made(tmp_path / "runs", scale, "a")
  broken = job(
    asked,
    arms.needed(asked)[arms.MULTI, "bitfit"],
    label="middle",
    split="test",
  )
  (broken.run.folder / "submodels").parent.mkdir(parents=True)
  (broken.run.folder / "submodels").write_text("in the way")
  with pytest.raises(InputError, match=r"1 that failed \(.*bitfit-middle/log"):
    study.study(asked, at_once=2, partial=True, out=out)
  told = json.loads((out / "study_tiny.json").read_text())
  assert list(told["arms"][arms.MULTI]) == ["hra-32"]
  assert told["missing"] == ["multi_task/bitfit"]
