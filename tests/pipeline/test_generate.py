"""From what a source hands over to files: what is not audio becomes a reason, what is too loud is not clipped."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from av_bench.contracts import Generated, GenerationJob, Reason, SampleSource
from av_bench.features.sides import MediaFile
from av_bench.pipeline.generate import SampleFiles, checked, collect_samples, describe, encoded
from av_bench.pipeline.own_samples import recorded
from av_bench.pipeline.plan import RunOptions
from av_bench.pipeline.prepare import make_plan
from av_bench.runtime.progress import Reporter

WAVE = torch.linspace(-0.5, 0.5, 1600)[None]


@pytest.mark.parametrize(
    ("audio", "rate", "reason"),
    [
        (WAVE, 16_000, None),
        (WAVE[0], 16_000, Reason.EMPTY),
        (WAVE[:, :0], 16_000, Reason.EMPTY),
        (WAVE, None, Reason.GENERATOR_FAILED),
        (WAVE, 0, Reason.GENERATOR_FAILED),
        (WAVE / 0 * 0, 16_000, Reason.NOT_FINITE),
        (WAVE.index_fill(1, torch.tensor([3]), torch.inf), 16_000, Reason.NOT_FINITE),
    ],
)
def test_what_is_no_audio_is_a_reason(audio: torch.Tensor, rate: int | None, reason: Reason | None) -> None:
    found = checked(Generated("a", 1, audio, rate))
    assert (found.clip_id, found.sample, found.reason) == ("a", 1, reason)
    assert (found.audio is None) == (reason is not None)


@pytest.mark.parametrize(
    ("peak", "channels", "suffix"), [(0.5, 1, ".flac"), (0.999, 2, ".flac"), (1.0, 1, ".wav"), (0.5, 9, ".wav")]
)
def test_audio_is_kept_as_it_is(peak: float, channels: int, suffix: str) -> None:
    """24 bits hold it to 1e-7; above full scale, and for more channels than FLAC has, it is float."""
    audio = (2 * peak * WAVE).repeat(channels, 1) * torch.linspace(1, 0.5, channels)[:, None]
    payload, chosen = encoded(audio, 16_000)
    assert chosen == suffix
    data, rate = soundfile.read(io.BytesIO(payload), always_2d=True)
    assert rate == 16_000
    np.testing.assert_allclose(data.T, audio, atol=0 if suffix == ".wav" else 2**-23)


def test_files_are_named_by_clip_and_by_sample_where_there_are_several(tmp_path: Path) -> None:
    one, two = SampleFiles(tmp_path, 1), SampleFiles(tmp_path, 2)
    assert one.place("a", 0, b"x", ".wav") == tmp_path / "a.wav"
    assert two.place("b", 1, b"x", ".flac") == tmp_path / "b~1.flac"
    assert one.find(("a", 0)) == tmp_path / "a.wav"
    assert two.find(("a", 0)) is None
    assert two.has("b")
    assert not two.has("c")


class Says(SampleSource):
    """Hands over what it was told to."""

    name = "says"

    def __init__(self, *said: Generated) -> None:
        self.said = said

    def produce(self, job: GenerationJob) -> Iterator[Generated]:
        """Whatever is asked."""
        del job
        yield from self.said


def collected(tmp_path: Path, *said: Generated) -> tuple[dict[str, MediaFile], dict[str, Any]]:
    """What becomes of it in a run on the clips a and b, and what the run says about its model."""
    data = tmp_path / "data"
    data.mkdir(exist_ok=True, parents=True)
    for name in ("a", "b"):
        (data / f"{name}.mp4").touch()
    options = RunOptions(set="clips", model="says", data=data, out=tmp_path / "run", quiet=True)
    plan = make_plan(options, Reporter(quiet=True), Says(*said))
    plan.folder.path.mkdir(exist_ok=True)
    try:
        known = recorded(plan.folder.inputs(), plan.folder.last_generated())
        lines = collect_samples(plan, plan.clips.clips, known, plan.folder.external(), Reporter(quiet=True))
        while True:
            try:
                plan.folder.write_line(next(lines))
            except StopIteration as end:
                return {medium.id: medium for medium in end.value}, describe(plan)
    finally:
        plan.folder.close()


def test_a_sample_that_fails_after_all_leaves_no_file(tmp_path: Path) -> None:
    taken_back = Generated("a", reason=Reason.DUPLICATE_STEM, detail="two rows")
    media, _ = collected(tmp_path, Generated("a", 0, WAVE, 16_000), Generated("b", 0, WAVE, 16_000), taken_back)
    assert media["a"].problem is not None
    assert media["a"].problem.reason is Reason.DUPLICATE_STEM
    assert media["b"].problem is None
    assert [path.name for path in (tmp_path / "run/audio").iterdir()] == ["b.flac"]


def test_a_clip_that_was_never_mentioned_has_no_sample_and_a_stranger_is_not_kept(tmp_path: Path) -> None:
    strangers = [Generated("c", 0, WAVE, 16_000), Generated("a", 1, WAVE, 16_000)]
    media, _ = collected(tmp_path, Generated("a", 0, WAVE, 16_000), *strangers)
    assert media["b"].problem is not None
    assert media["b"].problem.reason is Reason.GENERATOR_FAILED
    assert "gave no sample" in media["b"].problem.detail
    assert [path.name for path in (tmp_path / "run/audio").iterdir()] == ["a.flac"]
    first = (tmp_path / "run/audio/a.flac").stat().st_mtime_ns
    again, _ = collected(tmp_path, Generated("a", 0, 0.5 * WAVE, 16_000), Generated("b", 0, WAVE, 16_000))
    assert all(medium.problem is None for medium in again.values())
    assert (tmp_path / "run/audio/a.flac").stat().st_mtime_ns == first  # one that is there is left alone


def test_seconds_per_sample_are_those_of_the_samples_that_were_timed(tmp_path: Path) -> None:
    """1 + 0 s and 2 + 1 s: 2 s on average, with the standard deviation of a sample of two."""
    timed = [{"generation": 1.0}, {"generation": 2.0, "decoding": 1.0}]
    said = [Generated(name, 0, WAVE, 16_000, timings=parts) for name, parts in zip("ab", timed, strict=True)]
    _, notes = collected(tmp_path, *said)
    seconds = notes["seconds_per_sample"]
    assert (seconds["mean"], seconds["n"], seconds["parts"]) == (2.0, 2, {"decoding": 0.5, "generation": 1.5})
    assert seconds["sd"] == pytest.approx(2**0.5)
    _, untimed = collected(tmp_path / "other", Generated("a", 0, WAVE, 16_000))
    assert "seconds_per_sample" not in untimed
