"""What the transducer's loss costs beside the same with all logits at once.

    python benchmarks/transducer.py

Loss and gradients by encoder, prediction net and joint of a batch of 4 utterances, 192
frames, 48 labels, a joint of 320 and 1,024 labels in the vocabulary: in chunks of
several sizes as training does (4 if nothing else is asked for), and naively, where logits
[B, T, U + 1, V] and their log-softmax exist. Memory
is what XLA sets aside for temporaries; blocks of steps take turns in one process. Writes
docs/transducer.json and docs/transducer.md.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import results
from absl import app, flags, logging
from timing import median_ratio, take_turns

from hra.commands import process
from hra.decoders import transducer
from hra.decoders.interface import BLANK

_OUT = results.define_out()
_BLOCKS = flags.DEFINE_integer("blocks", 7, "Blocks of each form.")

NAIVE = "all logits at once"
BATCH, FRAMES, LABELS, JOINT, VOCABULARY = 4, 192, 48, 320, 1024
CHUNKS = (1, 4, 8, 16, 64)


def main(argv: Sequence[str]) -> None:
  del argv
  logging.set_verbosity(logging.FATAL)
  process.set_up()
  compiled = {NAIVE: _compiled(_naive)}
  for chunk in CHUNKS:
    form = functools.partial(_chunked, chunk)
    compiled[f"chunks of {chunk}"] = _compiled(form)
  given = _given()
  runs = {
    name: functools.partial(each, *given) for name, each in compiled.items()
  }
  times = take_turns(runs, blocks=_BLOCKS.value, steps=1)
  expected = compiled[NAIVE](*given)
  rows = {
    name: {
      "wall_seconds": times[name].wall,
      "cpu_seconds": times[name].cpu,
      "wall_ratio": median_ratio(times[name].walls, times[NAIVE].walls),
      "memory_bytes": each.memory_analysis().temp_size_in_bytes,
      "difference": _difference(each(*given), expected),
    }
    for name, each in compiled.items()
  }
  about = results.about("transducer")
  results.write(
    "transducer",
    figures={**about, "rows": rows},
    markdown=_markdown(about, rows),
    out=_OUT.value,
  )


def _given() -> tuple[np.ndarray, ...]:
  """Output weights, encoder and prediction net as projected for the joint."""
  rng = np.random.default_rng(0)

  def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return scale * rng.standard_normal(shape, np.float32)

  return (
    normal(JOINT, VOCABULARY, scale=JOINT**-0.5),
    normal(BATCH, FRAMES, JOINT),
    normal(BATCH, LABELS + 1, JOINT),
    np.array([FRAMES, FRAMES, 150, 100], np.int32),
    rng.integers(1, VOCABULARY, (BATCH, LABELS), np.int32),
    np.array([LABELS, 30, LABELS, 20], np.int32),
  )


def _joint(
  weights: jax.Array, encoded_TJ: jax.Array, predicted_PJ: jax.Array
) -> jax.Array:
  return jnp.tanh(encoded_TJ[:, None] + predicted_PJ) @ weights


def _chunked(
  chunk: int,
  weights: jax.Array,
  encoded_BTJ: jax.Array,
  predicted_BPJ: jax.Array,
  *labelled: jax.Array,
) -> jax.Array:
  one = functools.partial(
    transducer.joint_loss, functools.partial(_joint, weights), chunk=chunk
  )
  return jax.vmap(one)(encoded_BTJ, predicted_BPJ, *labelled).total.sum()


def _naive(
  weights: jax.Array,
  encoded_BTJ: jax.Array,
  predicted_BPJ: jax.Array,
  lengths_B: jax.Array,
  labels_BU: jax.Array,
  label_lengths_B: jax.Array,
) -> jax.Array:
  logs_BTPV = jax.nn.log_softmax(
    jax.vmap(functools.partial(_joint, weights))(encoded_BTJ, predicted_BPJ)
  )
  label_BTU = jnp.take_along_axis(
    logs_BTPV[:, :, :-1], labels_BU[:, None, :, None], axis=-1
  )[..., 0]
  return -jax.vmap(transducer.log_likelihood)(
    logs_BTPV[..., BLANK], label_BTU, lengths_B, label_lengths_B
  ).sum()


def _compiled(form: Callable[..., jax.Array]) -> Any:
  step = jax.value_and_grad(form, argnums=(0, 1, 2))
  return jax.jit(step).lower(*_given()).compile()


def _difference(found: Any, expected: Any) -> float:
  """The largest, relative to the largest number of its array."""
  return max(
    float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    for ours, theirs in zip(
      jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    )
  )


def _markdown(about: dict[str, str], rows: dict[str, dict[str, Any]]) -> str:
  most = rows[NAIVE]["memory_bytes"]
  lines = [
    results.title(
      about,
      note=f"loss and gradients, B {BATCH}, T {FRAMES}, U {LABELS}, joint "
      f"{JOINT}, V {VOCABULARY}, float32; medians of {_BLOCKS.value} blocks.",
    ),
    "",
    "| form | temporaries, MiB | part of naive | wall, s | wall / naive | CPU, s "
    "| largest difference |",
    "|---|---|---|---|---|---|---|",
  ]
  lines += [
    f"| {name} | {row['memory_bytes'] / 2**20:.1f} | "
    f"1/{most / row['memory_bytes']:.1f} | {row['wall_seconds']:.3f} | "
    f"{row['wall_ratio']:.2f} | {row['cpu_seconds']:.3f} | "
    f"{row['difference']:.0e} |"
    for name, row in rows.items()
  ]
  return "\n".join([*lines, ""])


if __name__ == "__main__":
  app.run(main)
