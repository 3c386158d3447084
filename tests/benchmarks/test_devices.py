"""Flags that can't be, a line each."""

import devices
import pytest
from absl import flags


@pytest.fixture
def values(monkeypatch):
  """Flags of this test's own."""
  made = flags.FlagValues()
  monkeypatch.setattr(devices.flags, "FLAGS", made)
  for name in ("DEFINE_list", "DEFINE_enum", "register_validator"):
    define = getattr(flags, name)

    def own(*given, define=define, **named):
      return define(*given, flag_values=made, **named)

    monkeypatch.setattr(devices.flags, name, own)
  return made


@pytest.mark.parametrize("given", ["", "12,x", "0", "-3", "1.5"])
def test_counts_are_whole_and_positive(values, given):
  devices.define_counts("rows", (16, 128), "")
  with pytest.raises(flags.IllegalFlagValueError, match="whole numbers"):
    values(["test", f"--rows={given}"])


def test_counts_have_a_default(values):
  devices.define_counts("rows", (16, 128), "")
  values(["test"])
  assert values.rows == ["16", "128"]


def test_a_device_that_is_not_there_is_a_line(values, monkeypatch):
  devices.define_device()
  values(["test", "--device=gpu"])
  monkeypatch.setattr(devices.jax.config, "update", lambda *_: None)
  monkeypatch.setattr(devices.jax, "default_backend", lambda: "cpu")
  with pytest.raises(SystemExit, match="--device=gpu: expected such"):
    devices.choose()
  values(["test", "--device=cpu"])
  devices.choose()
