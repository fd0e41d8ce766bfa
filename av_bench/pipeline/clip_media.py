"""The clips of finished runs with their media again: pictures, real sound, samples."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from av_bench.contracts import Clip, MediaError, UsageError, VideoRequest
from av_bench.media.decode import decode
from av_bench.media.folder import media_files
from av_bench.media.headers import open_recording
from av_bench.media.mux import mux
from av_bench.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from av_bench.results.record import Run
from protocols.definitions import SetRequest, load_set
from protocols.readers.read import read_clips

REAL = "real"


@dataclass
class ClipMedia:
    """Where the sounds of one list of clips are. ``name`` of a sound: ``real``, or the folder of a run."""

    clips: dict[str, Clip]
    runs: dict[str, Run]
    seconds: float
    _files: dict[str, dict[str, Path]] = field(default_factory=dict, repr=False)

    def clip(self, clip_id: str) -> Clip:
        """The clip of an id."""
        return self.clips[clip_id]

    def sound(self, name: str, clip_id: str) -> Path | None:
        """The file of a sound, None where there is none."""
        if name == REAL:
            return self.clips[clip_id].reference_audio
        return self._samples(name).get(clip_id)

    def link(self, name: str, clip_id: str) -> Path | None:
        """A file that can be played as it is: the clip's video, a run's video of the sample, or the sound alone."""
        if name == REAL:
            clip = self.clips[clip_id]
            return clip.video if clip.audio is None and clip.video is not None else clip.audio
        path = self.sound(name, clip_id)
        watched = None if path is None else self.runs[name].path / "videos" / f"{path.stem}.mp4"
        return watched if watched is not None and watched.is_file() else path

    def waveform(self, name: str, clip_id: str, rate: int) -> NDArray[np.float32] | None:
        """Mono ``(samples,)`` at ``rate``, cut to the scored window; None where there is no readable sound."""
        path = self.sound(name, clip_id)
        if path is None:
            return None
        try:
            wave = decode(path).waveform(rate, self.seconds, remove_mean=False)
        except MediaError:
            return None
        return np.asarray(wave.numpy(), dtype=np.float32)

    def frames(self, clip_id: str, fps: float, size: int) -> NDArray[np.uint8] | None:
        """Pictures ``(frames, height, width, 3)``, short side ``size``, of the scored window; None without video."""
        path = self.clips[clip_id].video
        if path is None:
            return None
        request = VideoRequest(fps=fps, size=size, mode="short")
        try:
            found = decode(path, [request], self.seconds, audio=False).frames(request)
        except MediaError:
            return None
        return np.asarray(found.permute(0, 2, 3, 1).numpy())

    def height(self, clip_id: str) -> int | None:
        """Short side of the picture in pixels, None without a readable one."""
        path = self.clips[clip_id].video
        if path is None:
            return None
        try:
            with open_recording(path) as container:
                streams = container.streams.video
                return min(streams[0].width, streams[0].height) if streams else None
        except (MediaError, av.error.FFmpegError, OSError):
            return None

    def write(self, name: str, clip_id: str, target: Path, gain: float = 0.0) -> Path | None:
        """A file to play, cut to the scored window: the clip's picture with this sound (mp4), or the sound (flac).

        ``target`` has no suffix, ``gain`` (dB) changes the level. None where there is no readable sound.
        """
        sound, picture = self.sound(name, clip_id), self.clips[clip_id].video
        if sound is None:
            return None
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            media = decode(sound)
            wave = media.channels(media.sample_rate, self.seconds).numpy().T * 10 ** (gain / 20)
            with tempfile.TemporaryDirectory() as folder:
                plain = Path(folder) / "sound.wav"
                soundfile.write(plain, wave, media.sample_rate, subtype="FLOAT")
                if picture is not None:
                    made = target.with_name(target.name + ".mp4")
                    mux(picture, plain, made, self.seconds)
                    return made
            made = target.with_name(target.name + ".flac")
            soundfile.write(made, np.clip(wave, -1, 1), media.sample_rate, subtype="PCM_16")
        except MediaError:
            return None
        return made

    def _samples(self, name: str) -> dict[str, Path]:
        """Clip id -> first sample of a run."""
        if name not in self._files:
            run = self.runs[name]
            folder = run.info["spec"].get("samples")
            place = Path(folder) if folder else run.path / "audio"
            found: dict[str, Path] = {}
            for path in sorted(media_files(place, AUDIO_SUFFIXES | VIDEO_SUFFIXES)) if place.is_dir() else ():
                stem = path.stem if path.stem in self.clips else path.stem.removesuffix("~0")
                found.setdefault(stem, path)
            self._files[name] = found
        return self._files[name]


def clip_media(
    runs: Sequence[Run], *, data: Path | None = None, table: Path | None = None, lists: Path | None = None
) -> ClipMedia:
    """The clips of runs of one list, read again as the runs read them.

    ``data``, ``table`` and ``lists`` replace what the runs were given. UsageError when the runs are of several lists,
    or when the list that is found now is another one.
    """
    first = runs[0]
    for run in runs:
        if run.scores["set"]["list_hash"] != first.scores["set"]["list_hash"]:
            raise UsageError(
                f"{first.path} and {run.path} are runs of other lists of clips; make one report for each set"
            )
    asked = first.info.get("request", {})

    def place(given: Path | None, recorded: str | None) -> Path | None:
        return given or (Path(recorded) if recorded else None)

    request = SetRequest(
        place(data, asked.get("data")), place(table, asked.get("table")), place(lists, asked.get("lists"))
    )
    limit = asked.get("limit") if asked else int(first.scores["counts"]["expected"])
    definition = load_set(str(asked.get("set", first.scores["set"]["name"])))
    clips = read_clips(definition, replace(request, limit=limit))
    if clips.list_hash != first.scores["set"]["list_hash"]:
        raise UsageError(
            f"{first.path} was scored on another list of clips than {definition.name} holds now; say where its clips "
            "are with --data, --table and --lists, as for the run"
        )
    by_id = {clip.id: clip for clip in clips.clips}
    return ClipMedia(by_id, {str(r.path): r for r in runs}, float(first.scores["protocol"]["seconds"]))
