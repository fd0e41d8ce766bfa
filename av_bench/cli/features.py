"""Features of media with a codec and a conditioner, one worker of one or many."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from av_bench.contracts import AvBenchError
from av_bench.runtime.devices import check_device
from model_zoo.mmaudio.features.crop_plan import Plan
from model_zoo.mmaudio.features.encode import MediaFeatures
from model_zoo.mmaudio.features.work import extract, prepare, said, unfinished
from model_zoo.mmaudio.training.journal import report_error


def main(arguments: Sequence[str] | None = None) -> int:
    """One worker from the command line; returns the exit code, 0 when this worker found nothing more to do."""
    parser = argparse.ArgumentParser(
        prog="python -m av_bench.cli.features",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--set", default="clips", help="set by name or YAML file; clips is any folder")
    parser.add_argument("--data", required=True, type=Path, help="folder of the media files")
    parser.add_argument("--table", type=Path, help="jsonl, csv or tsv with id or file, and text, caption or label")
    parser.add_argument("--out", required=True, type=Path, help="feature folder")
    parser.add_argument("--rate", required=True, choices=("16k", "44k"), help="audio rate of the codec")
    parser.add_argument("--vae", type=Path, help="a VAE that vae_training wrote, in place of the published one")
    parser.add_argument("--video", action="store_true", help="with visual features, of the first seconds of each file")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a training clip")
    parser.add_argument("--rule", choices=("paper", "code"), default="paper", help="how recordings are cut into crops")
    parser.add_argument("--crops", type=int, default=5, help="at most so many crops of a recording")
    parser.add_argument("--shard-size", type=int, default=4096, help="samples per shard")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    given = parser.parse_args(arguments)
    try:
        return _work(given)
    except (AvBenchError, OSError) as error:
        return report_error(error)


def _work(given: argparse.Namespace) -> int:
    from model_zoo.mmaudio.codec.published import OfficialCodec
    from model_zoo.mmaudio.conditions.published import OfficialConditioner
    from protocols.definitions import SetRequest, load_set
    from protocols.readers.read import read_clips

    check_device(given.device)
    found = read_clips(load_set(given.set), SetRequest(data=given.data, table=given.table)).clips
    clips = [replace(clip, text=clip.text or clip.label) for clip in found]  # class names are texts (section 3.5.1)
    encoder = MediaFeatures(OfficialCodec(given.rate, given.vae), OfficialConditioner(), given.seconds, given.device)
    plan = Plan(given.rule, given.crops, given.video, given.shard_size)
    for name in extract(given.out, clips, plan, encoder):
        print(f"{given.out / name}: done", file=sys.stderr, flush=True)
    work = prepare(given.out, clips, plan, encoder)
    print(f"{given.out}: {said(given.out, work)}")
    left = unfinished(given.out, work)
    print(f"{given.out}: {len(left)} shards are still in other workers' hands" if left else f"{given.out}: complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
