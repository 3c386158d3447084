"""LoRA: low-rank updates of projections (Hu et al. 2021, arXiv 2106.09685).

    y <- y + (alpha / r) (x A) B          for y = x W + b

A starts as PEFT starts it, ~ U(-1/sqrt(inputs), 1/sqrt(inputs)) (Kaiming's with
a = sqrt(5)), and B at zero, so a fresh row is the backbone. A row has
L r (inputs + outputs) numbers for each site.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from hra.adapters.interface import Frozen, Tree
from hra.config_tree import nearest
from hra.errors import InputError
from hra.keys import fold_words, hash_words
from hra.nn.affine import product


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora(Frozen):
  """Updates of rank `rank` at the same `sites` of each of `layers` layers."""

  layers: int
  rank: int
  sites: tuple[tuple[str, int, int], ...]
  """(site, inputs, outputs)."""
  alpha: float = 0.0
  """0 is twice the rank."""
  param_dtype: str = "float32"

  def init_task(self, key: jax.Array) -> Tree:
    """A site's A is a function of the key and the site's name alone."""
    dtype, depth, rank = jnp.dtype(self.param_dtype), self.layers, self.rank

    def site_row(site: str, inputs: int, outputs: int) -> Tree:
      own = fold_words(key, jnp.asarray(hash_words(site)))
      end = inputs**-0.5
      size = (depth, inputs, rank)
      return {
        "a": jax.random.uniform(own, size, dtype, minval=-end, maxval=end),
        "b": jnp.zeros((depth, rank, outputs), dtype),
      }

    return {"layers": {site: site_row(site, *io) for site, *io in self.sites}}

  def tap(
    self,
    shared: Tree,
    row: Tree,
    layer: jax.Array,
    site: str,
    inputs: jax.Array,
    outputs: jax.Array,
  ) -> jax.Array:
    del shared, layer
    own = row["layers"].get(site)
    if own is None:
      return outputs
    inner_TR = product(inputs, own["a"]).astype(inputs.dtype)
    scale = (self.alpha or 2.0 * self.rank) / self.rank
    update = scale * product(inner_TR, own["b"])
    return outputs + update.astype(outputs.dtype)


def sites_of(
  prefixes: Sequence[str], projections: Mapping[str, tuple[int, int]]
) -> tuple[tuple[str, int, int], ...]:
  """The projections whose path begins with one of `prefixes`, with their sizes.

  Raises:
    InputError: no prefix, or one with which no path begins.
  """
  where = "config.adapter.sites"
  if not prefixes:
    raise InputError(
      where, expected=f"some of {', '.join(projections)}", got="none"
    )
  groups = {site.split(".")[0] for site in projections}
  for prefix in prefixes:
    if not any(site.startswith(prefix) for site in projections):
      raise InputError(
        where,
        expected=f"the beginning of one of {', '.join(projections)}",
        got=repr(prefix),
        fix=f"did you mean {nearest(prefix, groups | set(projections))!r}?",
      )
  return tuple(
    (site, *sizes)
    for site, sizes in projections.items()
    if site.startswith(tuple(prefixes))
  )
