"""The compiled step: what it costs, what it copies, what it leaves alone.

Read from XLA's optimised program for CPU (`tests/hlo.py`). FLOPs, aliases and what
autodiff keeps hold on every platform; which fusions are made, and that CPUs widen
bfloat16 to float32, do not.
"""

import compiled
import hlo
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hra.adapters import table
from hra.config import AdapterConfig

HRA = AdapterConfig(width=128)
BOTH = AdapterConfig(width=8, heads="both")
WIDE = {"layers": 3, **compiled.WIDE}
"""Three layers: no two axes of a batch of 2 x 2 are as long."""
BUNDLED = {
  "width": 64,
  "layers": 3,
  "heads": 4,
  "feed_forward": 256,
  "kernel": 15,
  "subsampling_channels": 32,
  "vocabulary": 28,
}


def _program(function, *arguments) -> tuple[hlo.Program, float]:
  made = jax.jit(function).lower(*arguments).compile()
  return hlo.parse(made.as_text()), made.cost_analysis()["flops"]


def test_the_reader_counts_what_xla_counts_where_nothing_loops():
  def function(x, w):
    y = jax.lax.conv(x[None], w[..., None], (1,), "SAME")
    spectrum = jnp.fft.rfft(x).real  # what |z| costs is XLA's affair
    return jnp.tanh(x @ x.T).sum() + (y * 2).max() + spectrum.sum()

  program, told = _program(function, np.ones((16, 32)), np.ones((4, 16)))
  assert hlo.flops(program) == pytest.approx(told, rel=0.01)
  assert told > 2 * 16 * 32 * 16


@pytest.mark.parametrize("trips", [3, 7])
def test_the_reader_multiplies_a_loop_by_its_trip_count(trips):
  weights = np.ones((trips, 32, 32), np.float32)

  def run(x, *, unroll):
    def body(x, w):
      return jax.nn.relu(x @ w), None

    return jax.grad(
      lambda x: jax.lax.scan(body, x, weights, unroll=unroll)[0].sum()
    )(x)

  x = np.ones((16, 32), np.float32)
  rolled, once = _program(lambda x: run(x, unroll=1), x)
  unrolled, whole = _program(lambda x: run(x, unroll=True), x)
  assert set(hlo.trip_counts(rolled)) == {trips}
  assert hlo.trip_counts(unrolled) == []
  assert hlo.flops(rolled) == pytest.approx(whole, rel=0.02)
  assert hlo.flops(unrolled) == pytest.approx(whole, rel=0.02)
  assert once < 0.6 * whole


def test_the_reader_counts_rows_and_not_the_table():
  def step(table, ids, rows):
    old = table.at[ids].get(mode="fill", fill_value=0)
    return table.at[ids].set(old + rows, mode="drop", unique_indices=True)

  moved = []
  for number in (64, 4096):
    arguments = np.ones((number, 8)), np.arange(4), np.ones((4, 8))
    made = jax.jit(step, donate_argnums=0).lower(*arguments).compile()
    moved.append(hlo.traffic(hlo.parse(made.as_text())))
  assert moved[0] == moved[1] > 3 * 4 * 8 * 4
  copied = jax.jit(step).lower(*arguments).compile()  # not donated: a copy
  assert hlo.traffic(hlo.parse(copied.as_text())) > 2 * 4096 * 8 * 4


@pytest.fixture(scope="module")
def plain():
  """FLOPs of features and logits of the batch, bare backbone."""
  return hlo.flops(
    compiled.forward(compiled.PLAIN, rows=2, utterances=2, **WIDE)
  )


@pytest.fixture(scope="module")
def hra():
  return compiled.step(HRA, **WIDE)


def test_an_hra_step_costs_two_forward_passes(hra, plain):
  """1.02 of a forward pass, and back through it without weights' gradients."""
  assert 1.9 * plain < hlo.flops(hra.program) <= 2.1 * plain


@pytest.mark.slow
def test_a_step_costs_three_where_layers_are_recomputed(plain):
  full = compiled.step(HRA, remat="full", **WIDE)
  assert 2.5 * plain < hlo.flops(full.program) <= 3.1 * plain


@pytest.mark.slow
@pytest.mark.parametrize(("remat", "ratio"), [("none", 3.0), ("full", 4.0)])
def test_a_pretraining_step_costs_a_forward_pass_more(remat, ratio):
  """With 500 frames a batch: AdamW costs some 20 FLOPs a parameter, too."""
  sizes = {"samples": 160_000, "rows": 1, **WIDE}
  step = compiled.step(
    compiled.PLAIN, pretrain=True, remat=remat, places=1, **sizes
  )
  pool = hlo.flops(compiled.forward(compiled.PLAIN, utterances=2, **sizes))
  assert hlo.flops(step.program) == pytest.approx(ratio * pool, rel=0.06)


@pytest.mark.slow
def test_ratios_of_the_bundled_backbone():
  """Of its own size, where h = 2 d: 1.12 of a forward pass, and 2.22 a step.

  Features are counted in all three.
  """
  sizes = {"rows": 2, "utterances": 2, "samples": 48_000, **BUNDLED}
  bare = hlo.flops(compiled.forward(compiled.PLAIN, **sizes))
  adapted = hlo.flops(compiled.forward(HRA, **sizes))
  step = compiled.step(HRA, samples=48_000, **BUNDLED)
  ratios = adapted / bare, hlo.flops(step.program) / bare
  np.testing.assert_allclose(ratios, (1.12, 2.22), rtol=0.02)


def test_flops_grow_with_the_layers():
  two, four, eight = (
    hlo.flops(compiled.forward(compiled.PLAIN, rows=1, layers=layers))
    for layers in (2, 4, 8)
  )
  assert eight - four == pytest.approx(2 * (four - two), rel=1e-3)
  assert four > two


def _copies(step: compiled.Step) -> list[hlo.Instruction]:
  """What is as large as a stacked frozen leaf and isn't that leaf."""
  frozen = compiled.stacked(step.program, named="frozen_layers")
  assert {(3, 512, 2048), (3, 5, 512), (3, 512)} <= frozen
  passed = {"parameter", "tuple", "get-tuple-element", "while", "bitcast"}
  fused = step.program.fused
  return [
    instruction
    for name, instruction in step.program.instructions()
    if name not in fused
    and instruction.opcode not in passed
    and any(compiled.squeezed(array) in frozen for array in instruction.arrays)
  ]


def test_no_copy_of_a_stacked_frozen_leaf_is_made(hra):
  assert _copies(hra) == []


def test_nor_one_that_is_cast():
  """float32 weights and a bfloat16 stream: each layer's are cast, and again."""
  assert _copies(compiled.step(HRA, dtype="bfloat16", **WIDE)) == []


@pytest.mark.parametrize("remat", ["none", "full"])
def test_nor_one_of_8_bits_that_is_widened(remat):
  pytest.importorskip("qwix")
  step = compiled.step(HRA, weights="int8", remat=remat, **WIDE)
  assert _copies(step) == []
  inputs = step.program.computations[step.program.entry].values()
  assert ("s8", (3, 512, 2048)) in {
    (array.dtype, array.dims)
    for instruction in inputs
    if instruction.opcode == "parameter"
    for array in instruction.arrays
  }


def test_nor_before_a_platform_has_its_say():
  """bfloat16 weights, which CPUs widen: of the program as it is lowered."""
  lowered, _ = compiled.lower(
    HRA, dtype="bfloat16", param_dtype="bfloat16", **WIDE
  )
  text = lowered.as_text()
  assert "tensor<3x512x2048xbf16>" in text  # the weights themselves
  assert "tensor<3x512x2048xf32>" not in text
  for line in text.splitlines():
    made = line.partition(" = ")[2]
    if made.startswith("stablehlo.") and "stablehlo.while" not in made:
      assert "-> tensor<3x512x2048x" not in made, line
      assert not made.rstrip().endswith(": tensor<3x512x2048xbf16>"), line


def test_frozen_buffers_are_read_and_given_to_nobody(hra):
  parameters = [
    instruction
    for instruction in hra.program.computations[hra.program.entry].values()
    if instruction.opcode == "parameter"
  ]
  frozen = [p for p in parameters if "frozen" in p.name]
  assert len(frozen) > 30
  state = len(jax.tree.leaves(hra.state))
  # Every leaf of the state takes the buffer of the one before it; nothing else.
  assert hra.program.aliases == {place: place for place in range(state)}
  assert sum("state" in p.name for p in parameters) == state


@pytest.mark.parametrize(
  ("adapter", "kind"),
  [
    (BOTH, tiny.TABLE),
    pytest.param(
      AdapterConfig(family="residual", width=4),
      tiny.TABLE,
      marks=pytest.mark.slow,
    ),
    # Of a width that makes no other array as long as the table.
    pytest.param(
      AdapterConfig(width=6), tiny.EMBEDDING, marks=pytest.mark.slow
    ),
  ],
)
@pytest.mark.parametrize(
  "sizes",
  [(128, 16_384), pytest.param((128, 1024, 16_384), marks=pytest.mark.slow)],
)
def test_cost_follows_the_batch(adapter, kind, sizes):
  steps = [
    compiled.step(adapter, kind=kind, rows=rows, places=4) for rows in sizes
  ]
  costs = [
    (
      step.compiled.cost_analysis()["flops"],
      hlo.flops(step.program),
      hlo.traffic(step.program),
      step.compiled.memory_analysis().temp_size_in_bytes,
    )
    for step in steps
  ]
  assert np.all(np.max(costs, axis=0) <= 1.1 * np.min(costs, axis=0))
  for step, rows in zip(steps, sizes, strict=True):
    # In place: all of the state, table and moments and best rows included.
    leaves = jax.tree.leaves(step.state)
    assert step.program.aliases == {at: at for at in range(len(leaves))}
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    memory = step.compiled.memory_analysis()
    assert memory.alias_size_in_bytes == held
    own = table.count(step.state.rows)
    assert own % rows == 0
    assert table.count(step.state.rows_optimizer) == 2 * own + rows
    assert table.count(step.state.progress.best) == own
    # Nothing but the scatters is as long as the table.
    fused = step.program.fused
    for name, instruction in step.program.instructions():
      if name in fused or instruction.opcode == "parameter":
        continue
      long = any(rows in array.dims for array in instruction.arrays)
      if long and instruction.opcode == "fusion":
        inner = hlo.called(step.program, instruction)
        assert any(each.opcode == "scatter" for each in inner), instruction
      elif long:
        assert instruction.opcode in ("tuple", "get-tuple-element", "bitcast")


def test_32_speakers_in_a_batch_cost_what_the_backbone_costs():
  sizes = {"rows": 32, **WIDE}
  bare = hlo.flops(compiled.forward(compiled.PLAIN, **sizes))
  assert bare < hlo.flops(compiled.forward(HRA, **sizes)) <= 1.03 * bare
