"""What a training script written for av-benchmark does after sampling: the published calls, nothing of ours."""

import argparse
import json
from pathlib import Path

from av_bench.evaluate import evaluate
from av_bench.extract import extract

parser = argparse.ArgumentParser()
parser.add_argument("--gt_cache", type=Path)
parser.add_argument("--pred_audio", type=Path)
parser.add_argument("--pred_cache", type=Path)
parser.add_argument("--output", type=Path)
arguments = parser.parse_args()

extract(
    audio_path=arguments.pred_audio,
    output_path=arguments.pred_cache,
    device="cpu",
    batch_size=32,
    num_workers=4,
    audio_length=8,
)
output_metrics = evaluate(gt_audio_cache=arguments.gt_cache, pred_audio_cache=arguments.pred_cache)
for k, v in output_metrics.items():
    print(f"{k:<10}: {v:.10f}")
with open(arguments.output, "w") as f:  # noqa: PTH123
    json.dump(output_metrics, f, indent=4)
