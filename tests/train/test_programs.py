"""What is compiled once: compile time is what users of a sweep would wait for."""

import copy

import pytest

from hra import jobs, run


def _job(config, folder):
  parts = run.assemble(config, folder)
  state = run.initial_state(parts)
  return jobs.make_job(parts, jobs.make_loader(parts), initial=state), state


def _program(config, folder, batch=None):
  """The step of a job, lowered for its first batch, or for the one given."""
  job, state = _job(config, folder)
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
  config.augment.freq_masks, config.augment.freq_width = 1, 5
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


def test_equal_jobs_of_a_process_share_one_compiled_step(material, tmp_path):
  config = copy.deepcopy(material[0])
  one, _ = _job(config, tmp_path / "one")
  config.seed, config.train.rows.learning_rate = 5, 0.5
  other, _ = _job(config, tmp_path / "other")
  assert other.step.func is one.step.func
  config.augment.freq_masks, config.augment.freq_width = 1, 5
  augmented, _ = _job(config, tmp_path / "augmented")
  assert augmented.step.func is not one.step.func
  config.train.rows.b1 = 0.5
  slower, _ = _job(config, tmp_path / "slower")
  assert slower.step.func is not augmented.step.func
