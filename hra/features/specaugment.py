"""SpecAugment: time warp, frequency masks, time masks, fixed or adaptive.

Enters: log-mels, their valid lengths, a key per utterance, a policy.
Leaves: augmented log-mels of the same shape and dtype. Everything is written for
one utterance and follows that utterance's own length and key, so that neither
padding nor batch make-up changes what it draws. Park et al. 2019
(arXiv 1904.08779); adaptive masks: Park et al. 2019 (arXiv 1912.05533).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hra import config_tree
from hra.config import SpecAugmentConfig
from hra.errors import InputError

CONFIGS: dict[str, SpecAugmentConfig] = {
  "LB": SpecAugmentConfig(warp=80, freq_masks=1, time_masks=1),
  "LD": SpecAugmentConfig(warp=80, freq_masks=2, time_masks=2),
  "SM": SpecAugmentConfig(
    warp=40,
    freq_masks=2,
    freq_width=15,
    time_masks=2,
    time_width=70,
    time_ratio=0.2,
  ),
  "SS": SpecAugmentConfig(
    warp=40, freq_masks=2, time_masks=2, time_width=70, time_ratio=0.2
  ),
  "LibriFullAdapt": SpecAugmentConfig(
    warp=80,
    freq_masks=2,
    time_masks=20,
    time_width=0,
    time_multiplicity=0.04,
    time_size=0.04,
  ),
  "Conformer": SpecAugmentConfig(
    freq_masks=2, time_masks=10, time_width=0, time_size=0.05
  ),
}
"""The published policies (widths 27 and 100 are `SpecAugmentConfig`'s own). Of two
numbers no paper was at hand: LibriFullAdapt's warp, Conformer's frequency masks."""

_FILLS = ("zero", "mean", "noise")
_GATE, _WARP_FROM, _WARP_BY, _NOISE = range(4)
_FREQ_WIDTH, _FREQ_START, _TIME_WIDTH, _TIME_START = range(4, 8)
"""What a key is folded with, beside a mask's index: no two draws share a key."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
  """A `SpecAugmentConfig` as arrays: scalars, or one value per utterance [B].

  Only the static fields choose what is compiled, so that domains with other
  widths, or utterances left raw, share one compiled pass.
  """

  probability: jax.Array | np.ndarray
  warp: jax.Array | np.ndarray
  freq_masks: jax.Array | np.ndarray
  freq_width: jax.Array | np.ndarray
  time_masks: jax.Array | np.ndarray
  time_width: jax.Array | np.ndarray
  time_ratio: jax.Array | np.ndarray
  time_multiplicity: jax.Array | np.ndarray
  time_size: jax.Array | np.ndarray
  time_budget: jax.Array | np.ndarray
  fill: jax.Array | np.ndarray
  """Index of zero, mean, noise."""
  start: jax.Array | np.ndarray
  warmup: jax.Array | np.ndarray
  max_freq_masks: int = dataclasses.field(metadata={"static": True})
  max_time_masks: int = dataclasses.field(metadata={"static": True})
  may_warp: bool = dataclasses.field(metadata={"static": True})
  may_mean: bool = dataclasses.field(metadata={"static": True})
  may_noise: bool = dataclasses.field(metadata={"static": True})
  widest: int = dataclasses.field(metadata={"static": True})
  """Mel bins of the widest frequency mask that may be drawn."""


class Draw(NamedTuple):
  """What was sampled for one utterance; an unused mask has width 0."""

  applied: jax.Array
  """Whether this utterance is augmented at all."""
  warp_from: jax.Array
  """w0: the frame that moves."""
  warp_by: jax.Array
  """w: how far it moves; 0 is no warp."""
  freq_starts_M: jax.Array
  freq_widths_M: jax.Array
  time_starts_M: jax.Array
  time_widths_M: jax.Array


class Augmented(NamedTuple):
  """Features, and what became of them."""

  mel: jax.Array
  """As they came: [B, T, F], or [T, F] of one utterance."""
  masked: jax.Array
  """Where a mask covers a valid frame; of the features' shape."""
  drawn: Draw


def make_policy(config: SpecAugmentConfig) -> Policy:
  """The policy that a config describes.

  Raises:
    InputError: where options contradict one another.
  """
  config_tree.validate(config, path="augment")
  values = dataclasses.asdict(config) | {"fill": _FILLS.index(config.fill)}
  arrays = {
    field.name: np.asarray(
      values[field.name], np.float32 if field.type is float else np.int32
    )
    for field in dataclasses.fields(config)
  }
  return Policy(
    **arrays,
    max_freq_masks=config.freq_masks,
    max_time_masks=config.time_masks,
    may_warp=config.warp > 0,
    may_mean=config.fill == "mean",
    may_noise=config.fill == "noise",
    widest=config.freq_width - 1 if config.freq_masks else 0,
  )


def preset(name: str) -> SpecAugmentConfig:
  """A published policy as a configuration of its own, to be changed at will.

  Raises:
    InputError: there is none of that name.
  """
  if name not in CONFIGS:
    raise InputError(
      "SpecAugment policy",
      expected=f"one of {', '.join(CONFIGS)}",
      got=repr(name),
      fix=f"did you mean {config_tree.nearest(name, CONFIGS)!r}?",
    )
  return dataclasses.replace(CONFIGS[name])


def chosen(config: SpecAugmentConfig) -> Policy | None:
  """`make_policy`, or None where the config changes nothing."""
  changes = config.freq_masks or config.time_masks or config.warp
  return make_policy(config) if changes else None


PRESETS: dict[str, Policy] = {
  name: make_policy(config) for name, config in CONFIGS.items()
}


def choose(policies: Sequence[Policy], choice_B: jax.Array) -> Policy:
  """Each utterance's own policy, `policies[choice]`, for `augment`.

  Domains, or raw utterances beside noise-mixed ones (`probability` 0), thus
  share one pass; the largest static caps hold for all.
  """
  statics = {
    field.name: max(getattr(policy, field.name) for policy in policies)
    for field in dataclasses.fields(Policy)
    if field.metadata.get("static")
  }
  alike = [dataclasses.replace(policy, **statics) for policy in policies]
  return jax.tree.map(lambda *leaves: jnp.stack(leaves)[choice_B], *alike)


def at_step(policy: Policy, step: jax.Array | int) -> Policy:
  """The policy as it is at a step: nothing before `start`, then ever more of the
  utterances, for `warmup` steps."""
  done = step - policy.start + 1
  part = jnp.clip(done / jnp.maximum(policy.warmup, 1), 0, 1)
  probability = policy.probability * part.astype(jnp.float32)
  return dataclasses.replace(policy, probability=probability)


def augment(
  key: jax.Array, mel_BTF: jax.Array, lengths_B: jax.Array, policy: Policy
) -> jax.Array:
  """The features of `augment_with_masks`, which has the arguments."""
  return augment_with_masks(key, mel_BTF, lengths_B, policy).mel


def augment_with_masks(
  key: jax.Array, mel_BTF: jax.Array, lengths_B: jax.Array, policy: Policy
) -> Augmented:
  """`augment_one` for each utterance.

  Args:
    key: key_B, one per utterance; a scalar key is folded with the position.
    mel_BTF: features.
    lengths_B: valid frames.
    policy: shared by all, or with leaves [B] (`choose`); `at_step` has it warm up.

  Raises:
    InputError: the shapes don't fit together, or a frequency mask could be wider
      than the features.
  """
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    key = jax.random.wrap_key_data(key)
  size = mel_BTF.shape[0]
  if key.ndim == 0:
    key = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(size))
  if mel_BTF.ndim != 3 or lengths_B.shape != (size,) or key.shape != (size,):
    raise InputError(
      "augment",
      expected="mel [B, T, F], lengths [B] and a key or keys [B]",
      got=f"{mel_BTF.shape}, {lengths_B.shape} and {key.shape}",
    )
  check_fits(policy, mels=mel_BTF.shape[2])
  axes = jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, policy)
  return jax.vmap(augment_one, (0, 0, 0, axes))(key, mel_BTF, lengths_B, policy)


def check_fits(policy: Policy, *, mels: int) -> None:
  """Refuses a policy whose frequency masks could be wider than `mels` bins.

  Raises:
    InputError: they could.
  """
  if policy.widest > mels:
    raise InputError(
      "augment.freq_width",
      expected=f"at most {mels + 1}, as the features have {mels} bins",
      got=str(policy.widest + 1),
      fix="the published widths are for 80 bins: scale them",
    )


def augment_one(
  key: jax.Array, mel_TF: jax.Array, length: jax.Array | int, policy: Policy
) -> Augmented:
  """Warps and masks one utterance; frames from `length` on stay as they are.

  What a mask covers is replaced, not multiplied: a NaN there is gone, a NaN
  elsewhere stays. Fill with the mean takes each bin's over the valid, finite
  frames. Noise fills time masks only; frequency masks are then zero.
  """
  drawn = draw(key, length, policy, num_mels=mel_TF.shape[1])
  frames = jnp.arange(mel_TF.shape[0])
  bins = jnp.arange(mel_TF.shape[1])
  valid_T1 = (frames < length)[:, None]
  result_TF = mel_TF
  if policy.may_warp:
    result_TF = jnp.where(valid_T1, warped(mel_TF, length, drawn), mel_TF)
  freq_F = covered(bins, drawn.freq_starts_M, drawn.freq_widths_M)
  time_T = covered(frames, drawn.time_starts_M, drawn.time_widths_M)
  fill_F = jnp.zeros_like(mel_TF, shape=bins.shape)
  if policy.may_mean:
    mean_F = _mean(result_TF, valid_T1)
    fill_F = jnp.where(policy.fill == _FILLS.index("mean"), mean_F, fill_F)
  fill_TF = jnp.broadcast_to(fill_F, mel_TF.shape)
  if policy.may_noise:
    # Time leads, so that a longer padding leaves the valid part's noise as it is.
    noise_key = jax.random.fold_in(key, _NOISE << 16)
    noise_TF = jax.random.normal(noise_key, mel_TF.shape, jnp.float32)
    noisy = policy.fill == _FILLS.index("noise")
    fill_TF = jnp.where(noisy, noise_TF.astype(mel_TF.dtype), fill_TF)
  freq_TF = freq_F & valid_T1
  result_TF = jnp.where(freq_TF, fill_F, result_TF)
  result_TF = jnp.where(time_T[:, None], fill_TF, result_TF)
  return Augmented(
    jnp.where(drawn.applied, result_TF, mel_TF),
    drawn.applied & (freq_TF | time_T[:, None]),
    drawn,
  )


def covered(
  places: jax.Array, starts_M: jax.Array, widths_M: jax.Array
) -> jax.Array:
  """Which places any of the masks [start, start + width) covers."""
  offset_M = places[:, None] - starts_M
  return ((offset_M >= 0) & (offset_M < widths_M)).any(axis=1)


def draw(
  key: jax.Array, length: jax.Array | int, policy: Policy, *, num_mels: int
) -> Draw:
  """Samples the parameters of one utterance.

  Frequency masks: width ~ U{0..F-1}. Time masks: width ~ U{0..min(T - 1,
  floor(ratio * length))}, T being `time_width` or, adaptive, floor(size *
  length); their number is `time_masks` or, adaptive, at most that and
  floor(multiplicity * length). Starts are uniform over the places where the
  mask fits. Time masks that together exceed the budget are cut short, the last
  first, and at least one frame is always left. Warp: w0 ~ U{W..length - W - 1},
  w ~ U(-W, W); an utterance of at most 2 W frames isn't warped.
  """
  length = jnp.asarray(length, jnp.int32)
  freq_slots, time_slots = policy.max_freq_masks, policy.max_time_masks
  uniform = _uniforms(
    key,
    {_GATE: 1, _WARP_FROM: 1, _WARP_BY: 1}
    | {_FREQ_WIDTH: freq_slots, _FREQ_START: freq_slots}
    | {_TIME_WIDTH: time_slots, _TIME_START: time_slots},
  )
  freq_most = jnp.asarray(policy.freq_width) - 1
  freq_widths_M = _integers(uniform[_FREQ_WIDTH], freq_most)
  freq_used_M = jnp.arange(freq_slots) < policy.freq_masks
  freq_widths_M = jnp.where(freq_used_M, freq_widths_M, 0)
  time_widths_M = _time_widths(uniform[_TIME_WIDTH], length, policy)
  fits = length > 2 * policy.warp
  warp_room = jnp.where(fits, length - 2 * policy.warp - 1, 0)
  warp_by = (2 * uniform[_WARP_BY][0] - 1) * policy.warp
  return Draw(
    applied=uniform[_GATE][0] < policy.probability,
    warp_from=_integers(uniform[_WARP_FROM], warp_room)[0] + policy.warp,
    warp_by=jnp.where(fits, warp_by, 0),
    freq_starts_M=_integers(uniform[_FREQ_START], num_mels - freq_widths_M),
    freq_widths_M=freq_widths_M,
    time_starts_M=_integers(uniform[_TIME_START], length - time_widths_M),
    time_widths_M=time_widths_M,
  )


def _uniforms(
  key: jax.Array, counts: Mapping[int, int]
) -> dict[int, jax.Array]:
  """[0, 1) for each purpose and index, each by its own key.

  All in one vectorised pass: XLA compiles the generator once, not once a draw
  (1.6 CPU s against 2.3).
  """
  codes = [(code << 16) + np.arange(count) for code, count in counts.items()]

  def one(code: jax.Array | np.ndarray) -> jax.Array:
    return jax.random.uniform(jax.random.fold_in(key, code), (), jnp.float32)

  drawn = jax.vmap(one)(np.concatenate(codes))
  parts = jnp.split(drawn, np.cumsum([*counts.values()])[:-1])
  return dict(zip(counts, parts, strict=True))


def _integers(uniform_M: jax.Array, most: jax.Array | int) -> jax.Array:
  """~ U{0..most}; 0 where `most` is negative."""
  most = jnp.maximum(most, 0)
  drawn_M = jnp.floor(uniform_M * (most + 1).astype(jnp.float32))
  return jnp.minimum(drawn_M.astype(jnp.int32), most)


def _time_widths(
  uniform_M: jax.Array, length: jax.Array, policy: Policy
) -> jax.Array:
  """Widths within the bound, the number of masks and the budget."""
  count = jnp.where(
    policy.time_multiplicity > 0,
    jnp.minimum(_part(policy.time_multiplicity, length), policy.time_masks),
    policy.time_masks,
  )
  bound = jnp.where(
    policy.time_size > 0, _part(policy.time_size, length), policy.time_width
  )
  most = jnp.minimum(bound - 1, _part(policy.time_ratio, length))
  used_M = jnp.arange(policy.max_time_masks) < count
  widths_M = jnp.where(used_M, _integers(uniform_M, most), 0)
  budget = jnp.minimum(_part(policy.time_budget, length), length - 1)
  before_M = jnp.cumsum(widths_M) - widths_M
  return jnp.clip(budget - before_M, 0, widths_M)


def _part(ratio: jax.Array | np.ndarray, length: jax.Array) -> jax.Array:
  """floor(ratio * length), where float32's 0.21 * 300 mustn't be 62."""
  return jnp.floor(ratio * length.astype(jnp.float32) + 1e-3).astype(jnp.int32)


def _mean(mel_TF: jax.Array, valid_T1: jax.Array) -> jax.Array:
  """Each bin's mean over the valid, finite frames."""
  usable_TF = valid_T1 & jnp.isfinite(mel_TF)
  wide_TF = mel_TF.astype(jnp.promote_types(mel_TF.dtype, jnp.float32))
  total_F = jnp.where(usable_TF, wide_TF, 0).sum(axis=0)
  mean_F = total_F / jnp.maximum(usable_TF.sum(axis=0), 1)
  return mean_F.astype(mel_TF.dtype)


def warped(
  mel_TF: jax.Array, length: jax.Array | int, drawn: Draw
) -> jax.Array:
  """mel_TF warped in time: what stood at t stands at warp(t).

  warp(t) = t (w0 + w) / w0 for t <= w0, else ((len - 1 - w0 - w) t + (len - 1) w)
  / (len - 1 - w0): frames 0 and len - 1 stay where they are. Its inverse is
  linear on either side too: one gather of two neighbours, O(T F).
  """
  frames = jnp.arange(mel_TF.shape[0], dtype=jnp.float32)
  last = jnp.asarray(length - 1, jnp.float32)
  origin = drawn.warp_from.astype(jnp.float32)
  place = origin + drawn.warp_by
  tiny = jnp.finfo(jnp.float32).tiny
  early = frames * origin / jnp.maximum(place, tiny)
  to_end = (last - frames) * (last - origin)
  late = last - to_end / jnp.maximum(last - place, tiny)
  source = jnp.where(frames <= place, early, late)
  source = jnp.where(drawn.warp_by == 0, frames, source)
  source = jnp.clip(source, 0, jnp.maximum(last, 0))
  left = jnp.floor(source)
  weight_T1 = (source - left)[:, None]
  index = left.astype(jnp.int32)
  wide_TF = mel_TF.astype(jnp.promote_types(mel_TF.dtype, jnp.float32))
  mixed_TF = wide_TF[index] * (1 - weight_T1) + wide_TF[index + 1] * weight_T1
  # A frame that is hit exactly (the last one always is) takes nothing of its
  # neighbour, NaN least of all.
  mixed_TF = jnp.where(weight_T1 > 0, mixed_TF, wide_TF[index])
  return mixed_TF.astype(mel_TF.dtype)
