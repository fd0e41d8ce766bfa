"""From media files to features in the store: decode once, fan out to every extractor, skip what is there.

Batches are fixed by the order of the list, not by what happens to be left: if one feature of a batch is missing the
whole batch is run again and only the missing rows are written, so a resumed run computes the very same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice

import numpy as np
import torch

from av_bench.contracts import (
    SILENCE_PEAK,
    Decoded,
    Extractor,
    MediaError,
    Reason,
    is_out_of_memory,
    shortfall,
)
from av_bench.features.extractor_set import ExtractorSet, named_plugin
from av_bench.features.identify import identify
from av_bench.features.room import refuse_full_disk
from av_bench.features.sides import MediaFile
from av_bench.features.store import Features, Store, pair_key, text_key
from av_bench.media.decode import DECODER, NO_MEMORY, DecodedMedia, decode
from av_bench.runtime import interrupt
from av_bench.runtime.cores import torch_threads
from av_bench.runtime.prefetch import prefetch_map
from av_bench.runtime.progress import Reporter

BATCH = 16
PROBE = "probe-2-" + DECODER.replace(" ", "")  # probe-1 did not say how loud the sound is that is scored
FULL_SCALE = 1.0
LARGE = 16  # batches from which on the disk is looked at before they are run
_LENGTH_RATE = 16_000  # lengths are judged at the lowest rate of the published loaders


@dataclass
class _Loaded:
    medium: MediaFile
    probe: Features | None = None
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass
class Extraction:
    """Runs extractors over media and keeps count of what was really computed.

    ``one_network`` holds one network in memory at a time and decodes the media once for each: the same features, less
    memory, more decoding.
    """

    networks: ExtractorSet
    store: Store
    seconds: float
    workers: int
    reporter: Reporter
    one_network: bool = False
    units: Mapping[str, int] = field(default_factory=dict)  # clip id -> number of its unit; no batch crosses units
    forwards: int = 0

    def batches(self, media: Sequence[MediaFile]) -> Iterator[Sequence[MediaFile]]:
        """Batches in order, fixed by the list: at most ``BATCH`` media, all of one unit."""
        for _, members in groupby(media, key=lambda medium: self.units.get(medium.id, 0)):
            unit = list(members)
            yield from (unit[start : start + BATCH] for start in range(0, len(unit), BATCH))

    def media(
        self, media: Sequence[MediaFile], side: str, extractors: Sequence[str], *, audio: bool, video: bool
    ) -> None:
        """Extract every feature of a side. Media that fail get their ``problem``; the others are in the store.

        ``audio`` / ``video`` say which streams must be there and long enough.
        """
        with self.reporter.stage(f"read {side}", len(media)) as stage:
            identify(media, self.workers, self.store.root, stage.advance)
        known = self._judge_known(media, set(), audio=audio, video=video)
        for names in [[n] for n in extractors] if self.one_network and extractors else [extractors]:
            self._extract(media, side, names, audio)
            self._leave(names)
        self._judge_known(media, known, audio=audio, video=video)

    def _leave(self, names: Sequence[str]) -> None:
        """Take the networks out of memory when the next one shall have it alone."""
        if self.one_network:
            self.networks.forget(names)

    def _judge_known(self, media: Sequence[MediaFile], done: set[int], *, audio: bool, video: bool) -> set[int]:
        """Judge the media whose probe is in the store, but for those already done; returns all that are done."""
        waiting = [m for m in media if m.problem is None and id(m) not in done]
        probes = self.store.get(PROBE, [m.key(self.seconds) for m in waiting])
        for medium in waiting:
            probe = probes.get(medium.key(self.seconds))
            if probe is not None:
                self._judge(medium, probe, audio=audio, video=video)
                done.add(id(medium))
        return done

    def _extract(self, media: Sequence[MediaFile], side: str, extractors: Sequence[str], audio: bool) -> None:
        """Run what is missing. Threads decode and prepare ahead, across batches, while the networks compute."""
        fingerprints = {name: self.networks.fingerprint(name) for name in extractors}
        jobs: list[tuple[list[MediaFile], dict[str, set[str]]]] = []
        usable = [m.key(self.seconds) for m in media if m.problem is None]
        if not any(self.store.lacks(f, usable) for f in (PROBE, *fingerprints.values())):
            return
        for members in self.batches(media):
            batch = [m for m in members if m.problem is None]
            keys = {
                name: {m.key(self.seconds) for m in batch if not self._has(f, m)} for name, f in fingerprints.items()
            }
            missing = {name: wanted for name, wanted in keys.items() if wanted}
            if missing or not all(self._has(PROBE, m) for m in batch):
                jobs.append((batch, missing))
        built = {name: self.networks.single(name) for name in dict.fromkeys(n for _, missing in jobs for n in missing)}

        def load(job: tuple[MediaFile, dict[str, set[str]]]) -> _Loaded:
            return self._load(job[0], {name: built[name] for name in job[1]}, audio)

        every = [(m, missing) for batch, missing in jobs for m in batch]
        threads = torch.get_num_threads()
        with torch_threads(1), self.reporter.stage(f"extract {side}", len(every)) as stage:
            stream = prefetch_map(load, every, self.workers, BATCH + 2 * self.workers)
            for number, (batch, missing) in enumerate(jobs):
                if number in (0, 1) and len(jobs) >= LARGE:
                    rows = Counter[str]()
                    for _, to_come in jobs[number:]:
                        rows.update({fingerprints[name]: len(keys) for name, keys in to_come.items()})
                    refuse_full_disk(self.store, rows, self.reporter)
                loaded = [x for x in islice(stream, len(batch)) if x.probe is not None]
                probes = {x.medium.key(self.seconds): x.probe for x in loaded if x.probe is not None}
                self.store.put(PROBE, {key: row for key, row in probes.items() if not self.store.has(PROBE, key)})
                for name, lacking in missing.items():
                    with torch_threads(threads):
                        self._run(built[name], fingerprints[name], loaded, lacking)
                stage.advance(len(batch))

    def _run(self, extractor: Extractor, fingerprint: str, loaded: Sequence[_Loaded], missing: set[str]) -> None:
        """One network over one batch of loaded media; writes the rows that are missing.

        When a signal asks for an end, the rows that are done are written first.
        """
        rows = [x for x in loaded if extractor.name in x.inputs]
        entries: dict[str, Features] = {}
        try:
            for start in range(0, len(rows), extractor.batch_size):
                part = rows[start : start + extractor.batch_size]
                inputs = [x.inputs[extractor.name] for x in part]
                outputs = self.networks.run(extractor, inputs, [x.medium.id for x in part], self.workers)
                for x, output in zip(part, outputs, strict=True):
                    if all(np.isfinite(a).all() for a in output.values()):
                        entries[x.medium.key(self.seconds)] = output
                    else:
                        detail = f"{extractor.name} gave NaN or infinity"
                        x.medium.problem = MediaError(x.medium.path, Reason.BAD_FEATURES, detail)
                    interrupt.check()
                self.forwards += 1
        finally:
            self.store.put(fingerprint, {key: row for key, row in entries.items() if key in missing})

    def _has(self, fingerprint: str, medium: MediaFile) -> bool:
        return self.store.has(fingerprint, medium.key(self.seconds))

    def _load(self, medium: MediaFile, built: dict[str, Extractor], audio: bool) -> _Loaded:
        """Decode one file and prepare the input of every extractor that can use it; runs in a thread."""
        result = _Loaded(medium)
        seconds = medium.window(self.seconds)
        requests = [e.video_request for e in built.values() if e.video_request is not None]
        try:
            media = decode(medium.path, requests, seconds, content=medium.content, window=seconds)
            result.probe = _probe(media, seconds)
            for name, extractor in built.items():
                if extractor.modality == "video":
                    usable = _enough_frames(media, extractor, seconds)
                else:
                    usable = audio and enough_audio(media, seconds)
                if usable:
                    with named_plugin(name, [medium.id]):
                        result.inputs[name] = extractor.prepare(media, seconds)
        except MediaError as error:
            medium.problem = error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            medium.problem = MediaError(medium.path, Reason.OUT_OF_MEMORY, NO_MEMORY)
        if medium.problem is not None:
            return _Loaded(medium)
        return result

    def _judge(self, medium: MediaFile, probe: Features, *, audio: bool, video: bool) -> None:
        """Set the problem or the flags of a readable medium from what its probe says."""
        seconds = medium.window(self.seconds)
        samples, rate = int(probe["samples"]), int(probe["rate"])
        ends = float(probe["video_seconds"])
        if audio and not rate:
            medium.problem = MediaError(medium.path, Reason.NO_AUDIO, "the file has no audio stream")
        elif audio and not _covers(samples, rate, seconds):
            needed = int(_LENGTH_RATE * seconds)
            detail = f"the protocol: {shortfall(_resampled(samples, rate), needed, _LENGTH_RATE)}"
            medium.problem = MediaError(medium.path, Reason.TOO_SHORT_AUDIO, detail)
        elif video and ends < 0:
            medium.problem = MediaError(medium.path, Reason.NO_VIDEO, "the file has no video stream")
        elif video and round(ends * 25) < int(25 * seconds):
            detail = f"{ends:.3f} s of video, the protocol scores {seconds:g} s"
            medium.problem = MediaError(medium.path, Reason.TOO_SHORT_VIDEO, detail)
        if audio and medium.problem is None:
            medium.level = float(probe["peak"])
            medium.flags += _level_flags(medium.level, float(probe["heard"]))
        if audio and medium.problem is None and samples / rate > seconds + 0.05:
            medium.flags.append((Reason.CUT, f"{samples / rate:.2f} s cut to {seconds:g} s"))

    def texts(self, texts: Sequence[str], extractors: Sequence[str]) -> None:
        """Text features, batch by batch."""
        unique = sorted(set(texts))
        for name in extractors:
            fingerprint = self.networks.fingerprint(name)
            for start in range(0, len(unique), BATCH):
                batch = unique[start : start + BATCH]
                if all(self.store.has(fingerprint, text_key(t)) for t in batch):
                    continue
                extractor = self.networks.single(name)
                with named_plugin(name):
                    inputs = [extractor.prepare(t, self.seconds) for t in batch]
                outputs = list(self.networks.run(extractor, inputs, batch))
                self.forwards += 1
                self.store.put(fingerprint, {text_key(t): o for t, o in zip(batch, outputs, strict=True)})
            self._leave([name])

    def pairs(self, pairs: Sequence[tuple[MediaFile, MediaFile]], extractors: Sequence[str]) -> None:
        """Pair features of (video, audio) media whose own features are in the store."""
        for name in extractors:
            cls, fingerprint = self.networks.pair_class(name), self.networks.pair_fingerprint(name)
            inputs = [self.networks.fingerprint(n) for n in (cls.video, cls.audio)]
            for start in range(0, len(pairs), cls.batch_size):
                batch = pairs[start : start + cls.batch_size]
                keys = [pair_key(v.key(self.seconds), a.key(self.seconds)) for v, a in batch]
                if all(self.store.has(fingerprint, key) for key in keys):
                    continue
                video = self.store.require(inputs[0], [v.key(self.seconds) for v, _ in batch])
                audio = self.store.require(inputs[1], [a.key(self.seconds) for _, a in batch])
                outputs = self.networks.run_pair(
                    self.networks.pair(name),
                    [video[v.key(self.seconds)][cls.video_output] for v, _ in batch],
                    [audio[a.key(self.seconds)][cls.audio_output] for _, a in batch],
                    [v.id for v, _ in batch],
                )
                self.forwards += 1
                self.store.put(fingerprint, dict(zip(keys, outputs, strict=True)))
            self._leave([name])


def _level_flags(peak: float, heard: float) -> list[tuple[Reason, str]]:
    """Remarks on the level: ``peak`` is that of the loudest channel, ``heard`` that of what is scored."""
    flags = []
    if heard < SILENCE_PEAK:
        loud = peak >= SILENCE_PEAK
        detail = f"peak {heard:.1e} of the scored seconds, mixed to mono and centred"
        flags.append((Reason.SILENT, f"{detail}; one channel has {peak:.2g}" if loud else f"peak {peak:.1e}"))
    if peak > FULL_SCALE:
        flags.append((Reason.ABOVE_FULL_SCALE, f"peak {peak:.6g}, full scale is 1"))
    return flags


def _probe(media: DecodedMedia, seconds: float) -> Features:
    """What the ledger needs to know about a file, kept in the store so that a warm run decodes nothing."""
    video_seconds = -1.0 if media.video_seconds is None else media.video_seconds
    values: dict[str, float | int] = {
        "samples": media.samples,
        "rate": media.sample_rate,
        "peak": media.peak,
        "heard": media.heard(seconds),
        "video_seconds": video_seconds,
    }
    return {key: np.asarray(value) for key, value in values.items()}


def _covers(samples: int, rate: int, seconds: float) -> bool:
    """Whether resampling to 16 kHz fills the window (the published loader's own condition)."""
    return _resampled(samples, rate) >= int(_LENGTH_RATE * seconds)


def _resampled(samples: int, rate: int) -> int:
    return -(-samples * _LENGTH_RATE // rate)


def enough_audio(media: DecodedMedia, seconds: float) -> bool:
    """Whether a file has audio that fills the window."""
    return media.audio is not None and _covers(media.samples, media.sample_rate, seconds)


def _enough_frames(media: Decoded, extractor: Extractor, seconds: float) -> bool:
    request = extractor.video_request
    return request is None or media.frames(request).shape[0] >= int(request.fps * seconds)
