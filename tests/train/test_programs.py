"""What is compiled once: compile time is what users of a sweep would wait for."""

import copy

import pytest

from hra import jobs, run


def _program(config, folder, batch=None):
  """The step of a job, lowered for its first batch, or for the one given."""
  parts = run.assemble(config, folder)
  state = run.initial_state(parts)
  job = jobs.make_job(parts, jobs.make_loader(parts), initial=state)
  batch = next(job.batches(0)) if batch is None else batch
  lowered = job.step.func.lower(state, job.frozen, batch, **job.step.keywords)
  return lowered.as_text(), batch


@pytest.mark.parametrize(
  ("path", "value"),
  [
    ("seed", 5),
    ("train.shared.learning_rate", 0.5),
    ("train.rows.learning_rate", 0.5),
    ("train.shared.warmup_steps", 3),
    ("train.shared_part", 0.25),
    ("train.steps", 4),
    ("train.max_bad_steps", 3),
  ],
)
def test_other_seeds_and_rates_need_no_other_program(
  material, tmp_path, path, value
):
  config = copy.deepcopy(material[0])
  config.augment.freq_masks = 1
  program, batch = _program(config, tmp_path / "one")
  *groups, leaf = path.split(".")
  group = config
  for name in groups:
    group = getattr(group, name)
  assert getattr(group, leaf) != value
  setattr(group, leaf, value)
  assert _program(config, tmp_path / "other", batch)[0] == program


def test_what_never_trains_is_another_program(material, tmp_path):
  config = copy.deepcopy(material[0])
  program, batch = _program(config, tmp_path / "one")
  config.train.shared_part = 0.0
  assert _program(config, tmp_path / "other", batch)[0] != program
