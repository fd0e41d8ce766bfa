"""Reference audio and video of a run: the clips' own media, or a reference pack."""

from __future__ import annotations

from collections.abc import Sequence

import protocols
from av_bench.contracts import Clip, MediaError, Reason, UsageError
from av_bench.features.extraction import Extraction
from av_bench.features.sides import Medium, RealSide
from av_bench.pipeline import generate, score
from av_bench.pipeline.plan import Plan


def real_side(plan: Plan, extraction: Extraction, definition: protocols.SetDefinition) -> RealSide:
    """The real side: the clips' own media, or a reference pack that stands for them."""
    clips, pack = plan.clips.clips, plan.reference
    if pack is None:
        real = real_media(clips, extraction, definition.reference_audio)
    elif not pack.features:
        real = real_media(clips, extraction, False)
    else:
        needs = list(score.with_inputs(plan.columns, plan.networks))
        sounds = pack.media(clips, needs, extraction.store, plan.networks, extraction.seconds)
        real = RealSide(sounds, sounds, seen=all(pack.covers(n) for n in needs if n.side == "video"))
        if not real.seen and all(c.video is not None and c.video.is_file() for c in clips):
            real = RealSide(real_media(clips, extraction, False).pictures, sounds)
    if "onsets" in definition.options:
        for clip in clips:
            if clip.onsets is None and real.problem(clip.id) is None and real.media(clip.id):
                detail = "its file of onset times is not there"
                real.media(clip.id)[0].problem = MediaError(clip.id, Reason.MISSING_FILE, detail)
    return real


def refuse_changed_media(plan: Plan, real: RealSide) -> None:
    """Refuse to score samples that an earlier start made for other media, or with other weights.

    What every start of a run was made from is kept in ``inputs.json``. A user's own samples are read anew each time,
    and a clip that has no sample yet may have got another medium: it was broken, and is mended.
    """
    if plan.options.samples is not None:
        return
    digests = {c.id: [m.digest for m in real.media(c.id) if m.digest] for c in plan.clips.clips}
    media = {clip_id: found for clip_id, found in digests.items() if found}
    weights = str(getattr(plan.generator, "identity", ""))
    known = plan.folder.inputs()
    earlier = known.get("media", {})
    changed = [i for i, found in media.items() if earlier.get(i, found) != found and generate.has_sample(plan, i)]
    if changed:
        raise UsageError(
            f"{plan.folder.path} holds samples that were made before the media of {len(changed)} clips changed, e.g. "
            f"{changed[0]}; choose another --out or remove that folder"
        )
    if known.get("generator", weights) != weights:
        raise UsageError(
            f"{plan.folder.path} holds samples of {plan.spec.model} with other weights; choose another --out or remove "
            "that folder"
        )
    plan.folder.write_json("inputs.json", {"generator": weights, "media": earlier | media})


def real_media(clips: Sequence[Clip], extraction: Extraction, has_audio: bool) -> RealSide:
    """Media of the real side, extracted. Separate audio files are handled after the videos."""
    networks = extraction.networks
    audio_names, video_names = networks.of("reference") if has_audio else [], networks.of("video")
    joint = {c.id: Medium(c.id, c.video) for c in clips if c.video is not None}
    apart = {c.id: Medium(c.id, c.audio) for c in clips if c.audio is not None and has_audio}
    together = [m for i, m in joint.items() if i not in apart]
    extraction.media(together, "reference", [*audio_names, *video_names], audio=has_audio, video=True)
    alone = [m for i, m in joint.items() if i in apart]
    if alone:
        extraction.media(alone, "video", video_names, audio=False, video=True)
    if apart:
        extraction.media(list(apart.values()), "reference", audio_names, audio=True, video=False)
    return RealSide(joint, {**{m.id: m for m in together}, **apart} if has_audio else {})
