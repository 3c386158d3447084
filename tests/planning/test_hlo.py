"""FLOPs and collectives of programs whose text is written here."""

import pytest

from hra.planning import hlo, links

LOOP = """HloModule step, is_scheduled=true

%region.1 (left: f32[], right: f32[]) -> f32[] {
  %left = f32[] parameter(0)
  %right = f32[] parameter(1)
  ROOT %sum = f32[] add(%left, %right)
}

%woven.1 (part: f32[4,8]) -> f32[16,8] {
  %part = f32[4,8]{1,0} parameter(0)
  ROOT %gathered.1 = f32[16,8]{1,0} all-gather(%part), channel_id=3, replica_groups=[2,4]<=[8], dimensions={0}
}

%woven.2 (part: f32[4,8]) -> f32[16,8] {
  %part = f32[4,8]{1,0} parameter(0)
  ROOT %gathered.2 = f32[16,8]{1,0} all-gather(%part), channel_id=3, replica_groups=[2,4]<=[8], dimensions={0}
}

%all-reduce-scatter.1 (whole: f32[16,8]) -> f32[8,8] {
  %whole = f32[16,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %summed = f32[16,8]{1,0} all-reduce(%whole), channel_id=4, replica_groups={{0,1},{2,3}}, to_apply=%region.1
  ROOT %own = f32[8,8]{1,0} dynamic-slice(%summed, %zero, %zero), dynamic_slice_sizes={8,8}
}

%body (carried: (s32[], f32[4,8], f32[16,8])) -> (s32[], f32[4,8], f32[16,8]) {
  %carried = (s32[], f32[4,8]{1,0}, f32[16,8]{1,0}) parameter(0)
  %at = s32[] get-tuple-element(%carried), index=0
  %part.1 = f32[4,8]{1,0} get-tuple-element(%carried), index=1
  %before = f32[16,8]{1,0} fusion(%part.1), kind=kCustom, calls=%woven.1
  %after = f32[16,8]{1,0} fusion(%part.1), kind=kCustom, calls=%woven.2
  %doubled = f32[16,8]{1,0} add(%before, %after)
  ROOT %next = (s32[], f32[4,8]{1,0}, f32[16,8]{1,0}) tuple(%at, %part.1, %doubled)
}

%condition (carried: (s32[], f32[4,8], f32[16,8])) -> pred[] {
  %carried = (s32[], f32[4,8]{1,0}, f32[16,8]{1,0}) parameter(0)
  %many = s32[]{:T(128)} constant(5)
  %at = s32[] get-tuple-element(%carried), index=0
  ROOT %goes_on = pred[] compare(%at, %many), direction=LT
}

ENTRY %main (part: f32[4,8], whole: f32[16,8]) -> (s32[], f32[4,8], f32[16,8]) {
  %part = f32[4,8]{1,0} parameter(0)
  %whole = f32[16,8]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %kept = f32[8,8]{1,0} fusion(%whole), kind=kCustom, calls=%all-reduce-scatter.1
  %totals = (f32[6]{0}, f32[2]{0}) all-reduce(%part, %part), channel_id=5, replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%region.1
  %moved = (f32[4,8]{1,0}, f32[4,8]{1,0}, u32[], u32[]) collective-permute-start(%part), channel_id=6, source_target_pairs={{0,1},{1,0}}
  %first = (s32[], f32[4,8]{1,0}, f32[16,8]{1,0}) tuple(%zero, %part, %whole)
  ROOT %run = (s32[], f32[4,8]{1,0}, f32[16,8]{1,0}) while(%first), condition=%condition, body=%body
}
"""


@pytest.fixture
def program():
  return hlo.parse(LOOP)


def test_a_loop_whose_condition_says_how_often_counts_so(program):
  (loop,) = [
    each for _, each in program.instructions() if each.opcode == "while"
  ]
  assert hlo.trips(program, loop) == 5
  # Each round adds 16 x 8 numbers and compares two.
  assert hlo.flops(program) == 5 * (16 * 8 + 1)


def test_a_condition_that_compares_otherwise_says_nothing():
  program = hlo.parse(LOOP.replace("direction=LT", "direction=NE"))
  (loop,) = [
    each for _, each in program.instructions() if each.opcode == "while"
  ]
  assert hlo.trips(program, loop) is None


def test_collectives_count_as_often_as_they_run(program):
  sent = links.sent(program)
  # Two fusions, one channel: three quarters of 16 x 8 floats come from others.
  assert sent["all-gather"] == (5, 5 * 16 * 8 * 4 * 3 // 4)
  # Half of what all have is summed and kept.
  assert sent["reduce-scatter"] == (1, 16 * 8 * 4 // 2)
  assert sent["all-reduce"] == (1, 2 * (6 + 2) * 4 * 3 // 4)
  assert sent["collective-permute"] == (1, 4 * 8 * 4)


def test_a_sum_that_starts_says_only_what_leaves():
  text = """HloModule sums, is_scheduled=true, replica_count=2, num_partitions=4

ENTRY %main (a: f32[6], b: f32[2]) -> (f32[6], f32[2]) {
  %a = f32[6]{0} parameter(0)
  %b = f32[2]{0} parameter(1)
  %start = (f32[6]{0}, f32[2]{0}) all-reduce-start(%a, %b), channel_id=1, replica_groups={}, to_apply=%region.1
  ROOT %done = (f32[6]{0}, f32[2]{0}) all-reduce-done(%start)
}
"""
  # Of all eight devices, as no group is named.
  assert links.sent(hlo.parse(text)) == {
    "all-reduce": (1, 2 * (6 + 2) * 4 * 7 // 8)
  }


@pytest.mark.parametrize(
  ("made", "window", "meetings"),
  [
    ("f32[4,750,64]", "size=4 stride=3 lhs_dilate=4", 4),  # batch by batch
    ("f32[7,750,64]", "size=4 pad=3_3 rhs_reversal=1", 16),  # each with each
  ],
)
def test_a_batched_product_is_not_one_of_the_whole_batch(
  made, window, meetings
):
  text = f"""HloModule products

ENTRY %main (a: f32[4,750,96], b: f32[4,96,64]) -> {made} {{
  %a = f32[4,750,96]{{2,1,0}} parameter(0)
  %b = f32[4,96,64]{{2,1,0}} parameter(1)
  ROOT %c = {made}{{2,1,0}} convolution(%a, %b), window={{{window}}}, dim_labels=0bf_0io->0bf
}}
"""
  assert hlo.flops(hlo.parse(text)) == 2 * meetings * 750 * 96 * 64
