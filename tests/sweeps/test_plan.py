"""Planning a sweep: which runs, their names, their commands, what is refused."""

import itertools
import re

import pytest

from hra import config_tree
from hra.config import AdapterConfig, Config, DataConfig, TrainConfig
from hra.errors import InputError
from hra.sweeps import plan


def _plan(base=None, **given):
  given = {"experiment": "mine.py", "workdir": "/runs/w", **given}
  return plan.make(base or Config(), **given)


def _overrides(sweep):
  return [dict(run.overrides) for run in sweep.runs]


def test_axes_are_multiplied():
  sweep = _plan(axes=["adapter.width=32,64", "seed=0,1,2"])
  assert _overrides(sweep) == [
    {"adapter.width": width, "seed": seed}
    for width, seed in itertools.product(("32", "64"), ("0", "1", "2"))
  ]
  assert [run.config.adapter.width for run in sweep.runs] == [32] * 3 + [64] * 3
  assert [run.config.seed for run in sweep.runs] == [0, 1, 2] * 2


def test_axes_multiply_what_the_experiment_declares():
  sweep = _plan(
    declared=[{"adapter.width": 8}, {"adapter.family": "lora"}],
    axes=["seed=0,1"],
  )
  assert _overrides(sweep) == [
    {"adapter.width": "8", "seed": "0"},
    {"adapter.width": "8", "seed": "1"},
    {"adapter.family": "lora", "seed": "0"},
    {"adapter.family": "lora", "seed": "1"},
  ]
  named = _plan(declared={"small": {"adapter.width": 8}, "bare": {}})
  assert [run.name for run in named.runs] == ["small", "bare"]
  assert [run.label for run in named.runs] == ["small", "bare"]
  assert named.runs[0].overrides == {"adapter.width": "8"}
  both = _plan(declared={"small": {"adapter.width": 8}}, axes=["seed=1"])
  assert [run.name for run in both.runs] == ["small,seed=1"]


def test_settings_reach_every_run_and_its_command():
  sweep = _plan(axes=["seed=0,1"], settings=["train.steps=7"])
  for run in sweep.runs:
    assert run.config.train.steps == 7
    assert "--config.train.steps=7" in plan.commands(sweep, run)["train"]


def test_the_command_line_makes_the_configuration_that_was_planned():
  base = Config(adapter=AdapterConfig(width=5))
  sweep = _plan(
    base,
    declared=[
      {
        "adapter.sites": ("first", "attention.query"),
        "data.bucket_seconds": [0.1, 2],
        "train.rows.learning_rate": 1e-5,
        "adapter.family": "lora",
        "name": "a=b c",
      },
      {"data.tasks": (), "data.bucket_seconds": (3.5,)},
    ],
    settings=["train.steps=7"],
    axes=["seed=3"],
  )
  for run in sweep.runs:
    command = plan.commands(sweep, run)["train"]
    read = Config(adapter=AdapterConfig(width=5))
    for argument in command:
      if argument.startswith("--config."):
        config_tree.override(read, argument.removeprefix("--config."))
    assert read == run.config
  assert sweep.runs[0].config.adapter.sites == ("first", "attention.query")
  assert sweep.runs[1].config.data.tasks == ()


def test_commands_are_the_programs_own_in_order():
  sweep = _plan(axes=["seed=4"], split="dev")
  commands = plan.commands(sweep, sweep.runs[0], python="py")
  assert list(commands) == ["train", "evaluate"]
  train, evaluate = commands.values()
  assert train[:3] == ["py", "-m", "hra.commands.train"]
  assert "--workdir=/runs/w/seed=4" in train
  assert evaluate == [
    "py",
    "-m",
    "hra.commands.evaluate",
    "--workdir=/runs/w/seed=4",
    "--split=dev",
  ]


def test_the_split_is_the_configured_one_unless_given():
  base = Config(data=DataConfig(test_split="final"))
  assert _plan(base, axes=["seed=0"]).runs[0].split == "final"
  assert _plan(base, axes=["seed=0"], split="dev").runs[0].split == "dev"


def test_a_value_in_brackets_holds_commas():
  sweep = _plan(axes=["data.tasks=[anna],[bert, cleo],cleo,[]"])
  assert [run.config.data.tasks for run in sweep.runs] == [
    ("anna",),
    ("bert", "cleo"),
    ("cleo",),
    (),
  ]
  assert len({run.name for run in sweep.runs}) == 4


def test_declared_names_reach_the_run_unaltered():
  names = ("Doe, Jane", "Jane (F01)", 'a "b"', " c", "]", "")
  sweep = _plan(declared=[{"data.tasks": names}, {"data.tasks": names[:1]}])
  assert [run.config.data.tasks for run in sweep.runs] == [names, names[:1]]
  read = Config()
  (told,) = [
    each.removeprefix("--config.")
    for each in plan.commands(sweep, sweep.runs[0])["train"]
    if each.startswith("--config.data.tasks")
  ]
  config_tree.override(read, told)
  assert read.data.tasks == names
  axis = _plan(axes=['data.tasks=["Doe, Jane",b],["(x"]'])
  assert [run.config.data.tasks for run in axis.runs] == [
    ("Doe, Jane", "b"),
    ("(x",),
  ]


def test_a_folder_is_lower_case_like_all_of_its_name():
  (run,) = _plan(declared={"Small": {"seed": 1}}).runs
  assert (run.name, run.label) == ("small", "Small")


def test_names_are_short_safe_unique_and_independent_of_order():
  values = ["a", "A", "a/b", "a b", "a-b", "ü", "x" * 300, "x" * 301, "a.", ""]
  names = [plan.name_of({"data.path": value}) for value in values]
  assert len({name.casefold() for name in names}) == len(values)
  for name in names:
    assert re.fullmatch(r"[a-z0-9._+=,-]{1,80}", name)
    assert not name.endswith(".")
  assert plan.name_of({"seed": "1", "adapter.width": "64"}) == (
    "adapter.width=64,seed=1"
  )
  first = _plan(axes=["adapter.width=8,16", "seed=0,1"])
  other = _plan(axes=["seed=1,2,0", "adapter.width=16,32,8"])
  assert {run.name for run in first.runs} < {run.name for run in other.runs}


def test_a_value_has_one_name_however_it_is_written():
  written = [_plan(axes=[f"data.balance={each}"]) for each in (".5", "5e-1")]
  assert {sweep.runs[0].name for sweep in written} == {"data.balance=0.5"}


def test_planning_leaves_the_experiment_as_it_is():
  base = Config()
  _plan(base, axes=["seed=1,2"], settings=["train.steps=3"])
  assert base == Config()


def test_runs_that_hear_the_same_speech_share_it():
  base = Config(data=DataConfig(source="synthetic"))
  sweep = _plan(base, axes=["synthetic.speakers=2,3", "adapter.width=8,16"])
  two, also_two, three, also_three = (run.corpus for run in sweep.runs)
  assert two == also_two
  assert three == also_three
  assert two != three
  for run in sweep.runs:
    assert run.config.data.path == ""
    train = plan.commands(sweep, run)["train"]
    assert f"--config.data.path={run.corpus}" in train
  given = _plan(base, axes=["seed=1"], settings=["data.path=/mine"]).runs[0]
  assert given.corpus == "/mine"
  assert _plan(axes=["seed=1"]).runs[0].corpus == ""


def test_another_tokenizer_is_another_corpus():
  base = Config(data=DataConfig(source="synthetic"))
  sweep = _plan(base, axes=["backbone_path=/a,/b"])
  assert len({run.corpus for run in sweep.runs}) == 2
  base.adapter.family, base.data.grouping = "none", "pooled"
  base.train = TrainConfig(mode="pretrain")
  sweep = _plan(base, axes=["backbone_path=/a,/b"])
  assert len({run.corpus for run in sweep.runs}) == 1
  base.train = TrainConfig(mode="pretrain", start="backbone")
  sweep = _plan(base, axes=["backbone_path=/a,/b"])
  assert len({run.corpus for run in sweep.runs}) == 2


def test_how_many_processes_prepare_a_corpus_makes_no_other():
  base = Config(data=DataConfig(source="synthetic"))
  sweep = _plan(base, axes=["prepare.jobs=1,2"])
  assert len({run.corpus for run in sweep.runs}) == 1
  sweep = _plan(base, axes=["prepare.vocabulary=64,128"])
  assert len({run.corpus for run in sweep.runs}) == 2


@pytest.mark.parametrize(
  ("given", "told"),
  [
    ({}, "an axis"),
    ({"axes": ["adapter.widht=1"]}, "did you mean 'width'"),
    ({"axes": ["adapter.width=8,wide"]}, "expected int"),
    ({"axes": ["adapter.width=8,0"]}, "adapter.width=0: config.adapter.width"),
    ({"axes": ["adapter=8"]}, "the whole group"),
    ({"axes": ["adapter.width"]}, "FIELD=VALUE,VALUE"),
    ({"axes": ["adapter.width=8,,9"]}, "FIELD=VALUE,VALUE"),
    ({"axes": ["adapter.sites=[a,b"]}, "brackets and quotes that match"),
    ({"axes": ["adapter.sites=a],[b"]}, "brackets and quotes that match"),
    ({"axes": ["data.balance=0.5,.5"]}, "each value once"),
    ({"axes": ["seed=1", "seed=2"]}, "each field once"),
    ({"axes": ["seed=1"], "settings": ["seed=2"]}, "one of an axis"),
    ({"declared": [{"seed": 1}], "settings": ["seed=2"]}, r"one of sweep\(\)"),
    ({"declared": [{"seed": 1}], "axes": ["seed=2"]}, r"sweep\(\) of mine.py"),
    ({"declared": []}, r"mine.py: sweep\(\)"),
    ({"declared": {"seed": 1}}, "{field: value} for 'seed'"),
    ({"declared": [3]}, "mappings"),
    ({"declared": {"a/b": {}}}, "'a/b'"),
    ({"declared": {"NUL": {}}}, "'NUL'"),
    ({"declared": {"com3": {}}}, "'com3'"),
    ({"declared": {"LPT9.x": {}}}, "'LPT9.x'"),
    ({"axes": ['data.tasks=["a']}, "brackets and quotes that match"),
    ({"axes": ["adapter.alpha=1,2"]}, "it belongs to 'lora'"),
    (
      {"declared": [{"adapter.family": "residual", "adapter.head_width": 3}]},
      "it belongs to 'hra'",
    ),
    (
      {"declared": {"x": {"adapter.family": "lora", "adapter.sites": ["no"]}}},
      r"^x: config\.adapter\.sites: .*'no'",
    ),
    (
      {"declared": [{"adapter.family": "full", "space.kind": "embedding"}]},
      r"config\.space\.kind",
    ),
    (
      {"axes": ["data.source=synthetic"], "split": "tset"},
      "--split: .*did you mean 'test'",
    ),
    (
      {"axes": ["data.source=synthetic"], "settings": ["data.test_split=x"]},
      "config.data.test_split: expected one of 'train', 'dev', 'test'",
    ),
    ({"declared": {"a": {}, "A": {}}}, "runs that differ"),
    ({"declared": [{"seed": 1}, {"seed": 1}]}, "runs that differ"),
    ({"declared": {"a": {"sed": 1}}}, r"sweep\(\) a: config.sed"),
    ({"declared": [{"seed": 1.5}]}, "expected int"),
  ],
)
def test_what_cannot_be_planned_is_one_clear_line(given, told):
  with pytest.raises(InputError, match=told) as caught:
    _plan(**given)
  assert "\n" not in str(caught.value)
