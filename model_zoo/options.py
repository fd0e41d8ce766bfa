"""Options of the package's own models, ``NAME:option=value`` -> what it does.

They are kept apart from the classes that take them: listing models imports neither torch nor a network.
"""

from __future__ import annotations

from collections.abc import Mapping

from model_zoo.mmaudio.sampling.settings import GUIDANCE, OPTIONS, STEPS

ORACLE: Mapping[str, str] = {
    "shift": "delay in seconds (negative: earlier); the gap is silent and the end is cut",
    "lowpass": "cut-off in Hz of an 8th-order zero-phase Butterworth low-pass",
    "gain": "level change in dB",
    "noise": "level of added white noise, in dB relative to the clip's own RMS",
    "mix": "seconds by which a second copy is delayed and added at the same level (an echo)",
}
NANO_DEFAULTS: Mapping[str, object] = {"steps": 8, "solver": "multistep", "cfg": 3.0, "guide_from": 0.4}
"""Guidance was chosen on held-out scenes of train (docs/mmaudio-nano.md)."""
MMAUDIO_NANO: Mapping[str, str] = {
    **{key: text for key, text in OPTIONS.items() if key not in ("window", "frames")},
    "steps": f"steps of the solver (default {NANO_DEFAULTS['steps']}; {STEPS} with a solver other than its own)",
    "cfg": OPTIONS["cfg"].replace(f"default {GUIDANCE}", f"default {NANO_DEFAULTS['cfg']}"),
    "guide_from": OPTIONS["guide_from"].replace("default 0)", f"default {NANO_DEFAULTS['guide_from']})"),
    "solver": OPTIONS["solver"] + f" (default {NANO_DEFAULTS['solver']})",
}
PUBLISHED_MMAUDIO: Mapping[str, str] = {**OPTIONS, "vae": "a trained VAE in place of the published one"}

_PUBLISHED = ("mmaudio-s-16k", "mmaudio-s-44k", "mmaudio-m-44k", "mmaudio-l-44k", "mmaudio-l", "mmaudio-l-44k-v2")
OPTIONS_OF: Mapping[str, Mapping[str, str]] = {
    "oracle": ORACLE,
    "mmaudio-nano": MMAUDIO_NANO,
    **dict.fromkeys(_PUBLISHED, PUBLISHED_MMAUDIO),
}
"""By name in the registry; a model that is absent has no options."""
