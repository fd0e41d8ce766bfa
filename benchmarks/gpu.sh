#!/bin/sh
# All figures that a GPU owner can give in under 12 minutes on one GPU, into one folder.
#
#     sh benchmarks/gpu.sh OUT [CHECKOUT of hkchengrex/MMAudio]
#     DRY=1 sh benchmarks/gpu.sh OUT [CHECKOUT]      # every command at a tiny size on a CPU, to see that it starts
#
# OUT/*.txt: the GPU tests, sampling (ours, without recorded graphs, compiled, compiled graphs, two plain passes, the
# original), training steps with peak memory, peak memory of sampling with and without offload, and the counts of
# operations and bytes that these times belong to. Each part has a limit, so that one that hangs does not cost the
# others; the limits add up to 12 minutes.
set -u
out=${1:?give a folder for the results}
original=${2:+--original $2}
dry=${DRY:-}
device=${dry:+cpu}
device=${device:-cuda}
mkdir -p "$out"
failed=0
part() {
    name=$1; limit=$2; shift 2; echo "$name"
    timeout "$limit" "$@" > "$out/$name.txt" 2>&1 || { code=$?; failed=1; echo "exit $code" | tee -a "$out/$name.txt"; }
}
sampling() { name=$1; limit=$2; shift 2; part "$name" "$limit" python benchmarks/mmaudio_sampling.py --device "$device" "$@" $original; }
training() { name=$1; limit=$2; shift 2; part "$name" "$limit" python benchmarks/mmaudio_training.py --device "$device" "$@" $original; }

if [ "$dry" ]; then
    python -c "import torch; print(torch.__version__, 'dry')" > "$out/machine.txt" || exit 4
    part tests 600 python -m pytest -q -m gpu tests/model_zoo/mmaudio/test_gpu.py
    part counts 600 python benchmarks/mmaudio_counts.py --variant mmaudio-s-16k --parts flow
    sampling sampling-s 600 --shrink 64 --steps 1 --repeat 1 --batch 1 2 --compile no
    sampling sampling-l 600 --shrink 64 --steps 1 --repeat 1 --variant mmaudio-l-44k
    training training-s 600 --shrink 64 --batch 4 --steps 1 --precision fp32 --skip compiled "original, compiled"
    training training-l 600 --shrink 64 --config large_44k --batch 4 --steps 1 --precision fp32 --skip compiled "original, compiled"
else
    python -c "import torch; print(torch.__version__, torch.cuda.get_device_name(0))" > "$out/machine.txt" || exit 4
    part tests 120 python -m pytest -q -m gpu tests/model_zoo/mmaudio/test_gpu.py
    sampling sampling-s 150 --batch 1 8 32 --compile no yes graphs
    sampling sampling-l 110 --variant mmaudio-l-44k --batch 1 8 --compile no
    training training-s 130 --batch 64 --steps 6
    training training-l 80 --config large_44k --batch 16 --steps 4 --skip compiled "original, compiled" "in 2 pieces" "in 4 pieces"
    part counts 80 python benchmarks/mmaudio_counts.py --variant mmaudio-s-16k
fi
for offload in no yes; do
    part "memory-offload-$offload" 25 python benchmarks/mmaudio_memory.py --device "$device" --offload "$offload"
done
cat "$out"/*.txt
exit $failed
