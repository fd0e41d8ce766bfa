"""What to do about a clip that was left out, by its reason."""

from __future__ import annotations

from av_bench.contracts import Reason

_REASONS = {
    Reason.MISSING_FILE: "the clip's file is not in the data folder: get it, or name the right folder with --data",
    Reason.MISSING_SAMPLE: "no sample has the clip's name: generate it, or name the file after the clip's id",
    Reason.EXTRA_SAMPLE: "no clip has this name: rename or remove the file",
    Reason.DUPLICATE_STEM: "two files have the clip's name: keep one",
    Reason.UNREADABLE: "the file is damaged or cut off: get or make it again",
    Reason.EMPTY: "the file is empty: make it again",
    Reason.NO_AUDIO: "the file has no audio stream: give a file with sound",
    Reason.NO_VIDEO: "the file has no video stream: give the clip's video, or a protocol without video metrics",
    Reason.NO_TEXT: "the clip has no text: add it to the table, or choose metrics that need none",
    Reason.TOO_SHORT_AUDIO: "the sound is shorter than the scored window: generate the whole window, or score less",
    Reason.TOO_SHORT_VIDEO: "the video is shorter than the scored window: get the whole clip, or drop it",
    Reason.NOT_FINITE: "the sample holds NaN or infinite values: the generator has to be fixed",
    Reason.GENERATOR_FAILED: "the generator gave no sample: its words stand beside; run again to try once more",
    Reason.BAD_FEATURES: "a network gave values that are not finite for it: listen to the file",
    Reason.TIMEOUT: "the generator took too long: raise its timeout",
    Reason.CRASHED: "the generator's process ended: its log in the run folder says why",
    Reason.PATH_ESCAPE: "the generator named a file outside its folder: its driver has to be fixed",
    Reason.WRONG_RATE: "the sample has another rate than the manifest says: mend the one that is wrong",
    Reason.WRONG_LENGTH: "the sample has another length than was asked for: mend the driver",
}


def what_to_do(reason: str) -> str:
    """One sentence; for a reason this version does not know, where to look."""
    try:
        return _REASONS.get(Reason(reason), "it is scored; the ledger of the run says more")
    except ValueError:
        return "the ledger of the run says more"
