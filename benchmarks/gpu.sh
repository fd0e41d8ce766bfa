#!/bin/sh
# All figures that a GPU owner can give in under 12 minutes on one GPU, into one folder.
#
#     sh benchmarks/gpu.sh OUT [CHECKOUT of hkchengrex/MMAudio]
#
# OUT/*.txt: the GPU tests, sampling (ours, compiled, CUDA graphs, two plain passes, the original), training steps with
# peak memory, and peak memory of sampling with and without offload. Each part has a limit, so that one that hangs does
# not cost the others.
set -u
out=${1:?give a folder for the results}
original=${2:+--original $2}
mkdir -p "$out"
python -c "import torch; print(torch.__version__, torch.cuda.get_device_name(0))" > "$out/machine.txt" || exit 4
part() { name=$1; limit=$2; shift 2; echo "$name"; timeout "$limit" "$@" > "$out/$name.txt" 2>&1 || echo "exit $?" >> "$out/$name.txt"; }
part tests 120 python -m pytest -q -m gpu tests/model_zoo/mmaudio/test_gpu.py
part sampling-s 180 python benchmarks/mmaudio_sampling.py --device cuda --batch 1 8 32 --compile yes graphs $original
part sampling-l 120 python benchmarks/mmaudio_sampling.py --device cuda --variant mmaudio-l-44k --batch 1 8 --compile graphs $original
part training-s 150 python benchmarks/mmaudio_training.py --device cuda --batch 64 --steps 6 $original
part training-l 90 python benchmarks/mmaudio_training.py --device cuda --config large_44k --batch 16 --steps 4 --skip compiled "original, compiled" "in 2 pieces" "in 4 pieces" $original
for offload in no yes; do
    part "memory-offload-$offload" 30 python -c "
import torch
from av_bench.contracts import Clip, ClipSet
from model_zoo.mmaudio.nano.model import MMAudioNano
model = MMAudioNano(offload='$offload', device='cuda')
clips = ClipSet('x', '1', tuple(Clip(f'c{i}', text='glass') for i in range(8)))
model.setup(clips, 8.0, 1)
list(model.generate(clips.clips, 1))
print(torch.cuda.max_memory_allocated() / 2**20, 'MiB at most,', torch.cuda.memory_allocated() / 2**20, 'MiB left')
"
done
cat "$out"/*.txt
