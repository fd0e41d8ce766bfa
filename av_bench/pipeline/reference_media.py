"""Reference audio and video of a run: the clips' own media, or a reference pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from av_bench.contracts import Clip, MediaError, Reason, UsageError
from av_bench.features.extraction import Extraction
from av_bench.features.sides import MediaFile, ReferenceMedia
from av_bench.pipeline.generate import sample_files
from av_bench.pipeline.plan import RunPlan


def reads_videos(plan: RunPlan) -> bool:
    """Whether videos are read beside a pack: it lacks features of them, and all of them are there."""
    pack = plan.reference
    if pack is None or not pack.features or _covers_videos(plan):
        return False
    return all(c.video is not None and c.video.is_file() for c in plan.clips.clips)


def _covers_videos(plan: RunPlan) -> bool:
    assert plan.reference is not None
    return all(plan.reference.covers(n) for n in plan.measurement.needs if n.side == "video")


def has_video(plan: RunPlan) -> bool:
    """Whether features of the videos can be had: from the videos, or from the pack."""
    pack = plan.reference
    return pack is None or not pack.features or plan.reads_videos or _covers_videos(plan)


def reference_media(plan: RunPlan, extraction: Extraction) -> ReferenceMedia:
    """The reference of every clip, extracted: from its own media, or from a reference pack."""
    clips, pack, definition = plan.clips.clips, plan.reference, plan.definition
    if pack is None:
        media = extract_reference(clips, extraction, definition.reference_audio, plan.windows)
    elif not pack.features:
        media = extract_reference(clips, extraction, False, plan.windows)
    else:
        needs = plan.measurement.needs
        stand_ins = pack.media(clips, needs, extraction.store, plan.extractors, extraction.seconds)
        if plan.reads_videos:
            media = ReferenceMedia(extract_reference(clips, extraction, False, plan.windows).video, stand_ins)
        else:
            media = ReferenceMedia(stand_ins, stand_ins, has_video=_covers_videos(plan))
    if definition.onsets is not None:
        for clip in clips:
            if clip.onsets is None and media.problem(clip.id) is None and media.files(clip.id):
                detail = "its file of onset times is not there"
                media.files(clip.id)[0].problem = MediaError(clip.id, Reason.MISSING_FILE, detail)
    return media


def extract_reference(
    clips: Sequence[Clip], extraction: Extraction, has_audio: bool, windows: Mapping[str, float] | None = None
) -> ReferenceMedia:
    """The clips' own media, extracted. Separate audio files are handled after the videos.

    ``windows``: seconds that are scored of each clip, where they differ.
    """
    extractors = extraction.networks
    audio_names, video_names = extractors.of("reference") if has_audio else [], extractors.of("video")
    own = windows or {}
    videos = {c.id: MediaFile(c.id, c.video, seconds=own.get(c.id)) for c in clips if c.video is not None}
    apart = {c.id: MediaFile(c.id, c.audio, seconds=own.get(c.id)) for c in clips if c.audio is not None and has_audio}
    together = [m for i, m in videos.items() if i not in apart]
    extraction.media(together, "reference", [*audio_names, *video_names], audio=has_audio, video=True)
    silent = [m for i, m in videos.items() if i in apart]
    if silent:
        extraction.media(silent, "video", video_names, audio=False, video=True)
    if apart:
        extraction.media(list(apart.values()), "reference", audio_names, audio=True, video=False)
    return ReferenceMedia(videos, {**{m.id: m for m in together}, **apart} if has_audio else {})


def refuse_changed_media(
    plan: RunPlan, media: Mapping[str, Sequence[str]], earlier: Mapping[str, Sequence[str]]
) -> None:
    """Refuse to score samples that an earlier start made for other media.

    ``media`` and ``earlier`` are digests by clip, now and when its samples were made. A user's own samples are read
    again each time, and a clip that has no sample yet may have got another medium: it was broken and has been replaced.
    """
    if plan.options.samples is not None:
        return
    files = sample_files(plan)
    changed = [i for i, found in media.items() if found and list(earlier.get(i, found)) != list(found) and files.has(i)]
    if changed:
        raise UsageError(
            f"{plan.folder.path} holds samples that were made before the media of {len(changed)} clips changed, e.g. "
            f"{changed[0]}; choose another --out or remove that folder"
        )


def refuse_other_weights(plan: RunPlan) -> None:
    """Refuse a folder with samples of the same model with other weights; they are named in ``inputs.json``."""
    if plan.options.samples is None and plan.folder.inputs().get("generator", plan.source.identity) != (
        plan.source.identity
    ):
        raise UsageError(
            f"{plan.folder.path} holds samples of {plan.spec.model} with other weights; choose another --out or remove "
            "that folder"
        )
