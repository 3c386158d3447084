#!/bin/sh
# What an H100 or H200 has to tell, a folder of tables: sh benchmarks/gpu.sh [OUT]
#
# An encoder of Whisper large's shape, 32 recordings of 30 s of as many speakers, with
# everything recomputed and, where memory allows, products kept, and 4 with nothing but
# elementwise functions recomputed; 128 speakers jointly and one by one, as steps and as
# whole jobs; a table that grows.
set -eu
out=${1:-docs/gpu}
here=$(dirname "$0")
# Spares the tuning of Triton's products.
export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_enable_triton_gemm=false"

whisper() {
  python "$here/steps.py" --device=gpu --out="$out" --name="steps_whisper_$1" \
    --encoder=whisper --width=1280 --layers=32 --heads=20 --seconds=30 \
    --tasks="$2" --submodels="$3" --dtype=bfloat16 --remat="$1" --families=hra \
    --blocks=3
}

whisper full 32 1,8,32
whisper none 4 1,4
whisper dots 32 1,8,32 || echo "gpu.sh: no table of --remat=dots, see above" >&2
python "$here/steps.py" --device=gpu --out="$out" --name=steps_128_speakers \
  --width=512 --layers=17 --heads=8 --seconds=10 --tasks=128 --submodels=1,128 \
  --dtype=bfloat16 --remat=full --families=hra --blocks=5
python "$here/one_job.py" --out="$out"
python "$here/growth.py" --device=gpu --out="$out" --axes=rows \
  --rows=16,128,1024,4096,16384,65536
