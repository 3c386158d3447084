"""Names of topologies -> chips; a real step compiles where libtpu is installed."""

import importlib.util
from types import SimpleNamespace

import jax
import pytest
import tiny

from hra import hardware
from hra.config import AdapterConfig, Config, DataConfig, MeshConfig
from hra.errors import InputError
from hra.planning import aot, outlines, page, topology

PLAN = SimpleNamespace(estimates=SimpleNamespace(flops=4 * 197e12), devices=4)

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu isn't installed: pip install 'hra[tpu]'",
)


@pytest.mark.parametrize(
  "name", ["v5e", "16x16", "v5e:16y16", "two*v5e:2x2", "v5e:"]
)
def test_a_name_that_can_t_be_read_is_refused(name):
  with pytest.raises(InputError, match=r"such as v5e:16x16"):
    topology.described(name)


def test_without_libtpu_it_says_what_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
  with pytest.raises(InputError, match=r"pip install 'hra\[tpu\]'"):
    topology.described("v5e:2x2")


@needs_libtpu
@pytest.mark.parametrize(
  ("name", "chip", "count", "slices"),
  [
    ("v5e:16x16", "TPU v5e", 256, 1),
    ("v5e:1x1", "TPU v5e", 1, 1),
    ("2*v5e:4x4", "TPU v5e", 32, 2),
    ("v4:4x4x8", "TPU v4", 128, 1),
    ("v5p:4x4x4", "TPU v5p", 64, 1),
    ("v6e:8x8", "TPU v6e", 64, 1),
  ],
)
def test_chips_are_one_device_each(name, chip, count, slices):
  found = topology.described(name)
  assert (found.chip.name, len(found.devices), found.slices) == (
    chip,
    count,
    slices,
  )


@needs_libtpu
@pytest.mark.parametrize("name", ["v5e:17x16", "v9:2x2"])
def test_chips_that_nobody_makes_are_refused(name):
  with pytest.raises(InputError, match=name):
    topology.described(name)


def _config() -> tuple[Config, outlines.Outline]:
  config = Config(
    adapter=AdapterConfig(width=8, heads="both"),
    data=DataConfig(tasks_per_batch=4, utterances_per_task=2),
    mesh=MeshConfig(data=2, fsdp=2, tensor=1),
  )
  return config, outlines.Outline("small", tiny.BACKBONE, tiny.FRONTEND)


def _compiled(**changes) -> aot.Compiled:
  whole = {
    "topology": topology.Topology(
      "v5e:2x2", hardware.of_kind("TPU v5e"), [], 1
    ),
    "memory": aot.Memory(2**30, 0, 2**30, 0),
    "refused": "",
    "flops": 197e12,
    "sent": {"all-reduce": aot.Sent(3, 100 * 10**9)},
    "seconds": 1.0,
    "text": "",
  }
  return aot.Compiled(**{**whole, **changes})


def test_a_step_takes_no_less_time_than_its_flops_and_links():
  compiled = _compiled()
  assert compiled.fits
  assert compiled.compute_seconds == pytest.approx(1)
  assert compiled.link_seconds == pytest.approx(0.5)
  told = page.compiled_text(compiled, PLAN)
  assert "fits 16.0 GiB" in told
  assert "1.00 of its part" in told


@pytest.mark.parametrize(
  "changes",
  [
    {"memory": aot.Memory(15 * 2**30, 0, 2 * 2**30, 0)},
    {"refused": "26.86GiB where XLA has 15.75GiB"},
  ],
)
def test_a_step_that_doesn_t_fit_says_what_to_change(changes):
  compiled = _compiled(**changes)
  config, outline = _config()
  assert not compiled.fits
  with pytest.raises(InputError, match=r"config\.backbone\.remat=full") as said:
    aot.check_fits(compiled, config, outline)
  assert "16 GiB of a TPU v5e" in str(said.value)
  assert "does NOT fit" in page.compiled_text(compiled, PLAN)


@pytest.mark.parametrize(
  "message",
  [
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for "
    "HLO temporaries (26.86G) exceeds available HBM (15.75G).",
    "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 26.86G of "
    "15.75G hbm. Exceeded hbm capacity by 11.11G.",
  ],
)
def test_xla_s_own_figures_are_told(message, monkeypatch):
  class Refused:
    def compile(self):
      raise jax.errors.JaxRuntimeError(message)

  monkeypatch.setattr(aot, "_lowered", lambda *_, **__: Refused())
  config, outline = _config()
  config.mesh = MeshConfig(data=1)
  here = topology.Topology("one", hardware.CHIPS[1], jax.devices()[:1], 1)
  compiled = aot.compile_step(config, outline, here)
  assert compiled.refused == "26.86GiB where XLA has 15.75GiB"
  assert not compiled.fits


@needs_libtpu
@pytest.mark.slow
def test_a_step_compiles_for_tpus_that_are_not_there():
  config, outline = _config()
  chips = topology.described("v5e:2x2")
  compiled = aot.compile_step(config, outline, chips, tasks=8, seconds=1.0)
  assert compiled.fits
  assert compiled.memory.arguments > 0
  assert compiled.flops > 0
  assert compiled.sent["all-reduce"].times > 0
