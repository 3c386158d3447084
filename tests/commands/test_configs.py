"""`--config` and `--config.FIELD=VALUE`: flags in, a configuration out."""

from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from hra.commands import configs
from hra.errors import InputError
from hra.features import specaugment

GOOD = """
from hra.config import AdapterConfig, Config

def get_config():
  return Config(name="mine", adapter=AdapterConfig(width=5))
"""


@pytest.fixture(scope="module", autouse=True)
def _flags():
  if "config" not in flags.FLAGS:
    configs.define()
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(["test"])


def _file(folder: Path, text: str) -> str:
  path = folder / "experiment.py"
  path.write_text(text)
  return str(path)


@pytest.mark.parametrize(
  ("argv", "expected"),
  [
    (["--config.a.b=1"], ["--config_set=a.b=1"]),
    (["--config.a.b", "1"], ["--config_set=a.b=1"]),
    (["-config.a=1"], ["--config_set=a=1"]),
    (["--config.a=x=y"], ["--config_set=a=x=y"]),
    (["--config.a="], ["--config_set=a="]),
    (["--config.a"], ["--config_set=a"]),
    (
      ["--config=f.py", "--config", "g.py", "x.wav", "--config_set=a=1"],
      ["--config=f.py", "--config", "g.py", "x.wav", "--config_set=a=1"],
    ),
    (
      ["hra", "--config.a", "1", "--config.b=2", "rest"],
      ["hra", "--config_set=a=1", "--config_set=b=2", "rest"],
    ),
  ],
)
def test_rewrite(argv, expected):
  given = list(argv)
  assert configs.rewrite(argv) == expected
  assert argv == given


def test_rewrite_takes_a_tilde_for_the_home(monkeypatch):
  monkeypatch.setenv("HOME", "/home/anna")
  argv = [
    "--workdir=~/runs",
    "--config.data.path=~",
    "--axis=data.path=~/a,~/b",
    "--task=~anna",
    "~/x.wav",
  ]
  assert configs.rewrite(argv) == [
    "--workdir=/home/anna/runs",
    "--config_set=data.path=/home/anna",
    "--axis=data.path=/home/anna/a,/home/anna/b",
    "--task=~anna",
    "/home/anna/x.wav",
  ]


def test_load(tmp_path, monkeypatch):
  path = _file(tmp_path, GOOD)
  assert configs.load(path).adapter.width == 5
  monkeypatch.chdir(tmp_path)
  assert configs.load("experiment.py").name == "mine"


EXPERIMENTS = sorted(
  path.stem
  for path in Path(configs.experiment("quickstart")).parent.glob("*.py")
)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_experiments_that_come_along_load_and_validate(name):
  with flagsaver.flagsaver(config=configs.experiment(name)):
    config = configs.from_flags()
  assert config.name == name
  policy = specaugment.chosen(config.augment)
  if policy is not None:
    specaugment.check_fits(policy, mels=config.features.num_mels)


def test_every_run_of_the_mixes_validates():
  path = configs.experiment("multidomain_mix")
  runs = configs.load_module(path).sweep()
  assert len(runs) == 5
  for changes in runs.values():
    with flagsaver.flagsaver(
      config=path,
      config_set=[f"{field}={value}" for field, value in changes.items()],
    ):
      configs.from_flags()


def test_from_flags_overrides_and_validates(tmp_path):
  path = _file(tmp_path, GOOD)
  with flagsaver.flagsaver(config=path, config_set=["adapter.width=6"]):
    config = configs.from_flags()
  assert (config.name, config.adapter.width) == ("mine", 6)
  with (
    flagsaver.flagsaver(config=path, config_set=["adapter.widht=6"]),
    pytest.raises(InputError, match=r"^--config\.adapter\.widht: .*'width'"),
  ):
    configs.from_flags()
  with (
    flagsaver.flagsaver(config=path, config_set=["adapter.width=0"]),
    pytest.raises(InputError, match=r"^config\.adapter\.width: .*at least 1"),
  ):
    configs.from_flags()


def test_no_config_is_said():
  with (
    flagsaver.flagsaver(config=None),
    pytest.raises(InputError, match="--config: expected an experiment's file"),
  ):
    configs.from_flags()


def test_files_that_are_no_experiment(tmp_path):
  missing = str(tmp_path / "none.py")
  with pytest.raises(InputError, match=rf"--config={missing}: .* no such file"):
    configs.load(missing)
  other = tmp_path / "experiment.txt"
  other.write_text(GOOD)
  with pytest.raises(InputError, match=r"expected a \.py file"):
    configs.load(str(other))


@pytest.mark.parametrize(
  ("text", "where", "got"),
  [
    ("x = 1\n", "", r"a function get_config\(\), got none"),
    ("get_config = 1\n", "", r"a function get_config\(\), got none"),
    ("def get_config():\n  return {}\n", ": get_config()", "Config, got dict"),
    ("a = 1\nb = (\n", ":2", "got SyntaxError: '\\(' was never closed"),
    ("a = 1\nb = 1 / 0\n", ":2", "got ZeroDivisionError: division by zero"),
    ("\nimport no_such_module\n", ":2", "got ModuleNotFoundError: .*no_such"),
    (
      "from hra.config import Config\n\n\ndef get_config():\n"
      "  return Config(\n    nam='x',\n  )\n",
      ":5",
      r"got TypeError: .*'nam'",
    ),
    (
      "def get_config():\n  return helper()\n\n\n"
      "def helper():\n  raise ValueError('two\\nlines')\n",
      ":6",
      "got ValueError: two lines$",
    ),
    (
      "from hra import config_tree\nfrom hra.config import Config\n\n\n"
      "def get_config():\n  config = Config()\n"
      "  config_tree.override(config, 'adapter.width=wide')\n"
      "  return config\n",
      ":7",
      r"got ConfigError: config\.adapter\.width: expected int",
    ),
  ],
)
def test_an_experiment_that_fails_is_one_line(tmp_path, text, where, got):
  path = _file(tmp_path, text)
  with pytest.raises(InputError, match=got) as caught:
    configs.load(path)
  message = str(caught.value)
  assert message.startswith(f"{path}{where}: expected ")
  assert "\n" not in message


def test_the_line_is_found_by_a_path_that_climbs(tmp_path, monkeypatch):
  _file(tmp_path, "\n\nraise RuntimeError('here')\n")
  (tmp_path / "below").mkdir()
  monkeypatch.chdir(tmp_path / "below")
  with pytest.raises(InputError, match=r"^\.\./experiment\.py:3: .*here"):
    configs.load("../experiment.py")


def test_a_syntax_error_of_an_imported_module_blames_the_import(
  tmp_path, monkeypatch
):
  (tmp_path / "hra_test_broken.py").write_text("\n\n\n\ndef\n")
  monkeypatch.syspath_prepend(tmp_path)
  path = _file(tmp_path, "\nimport hra_test_broken\n")
  with pytest.raises(InputError, match=r"experiment\.py:2: .*hra_test_broken"):
    configs.load(path)


def test_required_shows_an_example():
  holder = flags.DEFINE_string("hra_test_flag", "", "A flag.")
  flags.FLAGS(["test"])
  with pytest.raises(
    InputError, match=r"^--hra_test_flag: .*such as --hra_test_flag=a/b$"
  ):
    configs.required(holder, "a/b")
  with flagsaver.flagsaver(hra_test_flag="c"):
    assert configs.required(holder, "a/b") == "c"
