"""The sound of a scene: modal synthesis of every contact, a room, and a quiet background.

A contact at time t starts at sample ``round(t * sample_rate)`` and not before. Its modes are damped cosines whose
strength falls with a contact-time low-pass (faster and harder contacts are brighter), plus a short burst of noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from protocols.impacts import SECONDS
from protocols.impacts.materials import FORMS, MATERIALS, MODE_RATIOS, Material
from protocols.impacts.scene import Scene
from protocols.impacts.streams import stream

Floats = NDArray[np.float32]

# Contact hardness of mallets and balls from soft to hard: factor on the cutoff of the material.
HEAD_HARDNESS = (0.3, 0.5, 0.8, 1.0)
QUIET = 1e-3  # modes are followed until -60 dB
LONGEST = 3.0  # s
SURVIVES = 0.25  # of the ringing that outlives the next contact of the same object
EXPONENT = 1.1  # level over speed
FLOOR = Material("floor", "hard", 85, 60, 160, 1.0, 0.9, 900, 0.25, 0.004, 0.0, 1.0)  # what objects drop on


@dataclass(frozen=True)
class Body:
    """A ringing thing: mode frequencies (Hz), responses to a unit blow ``(modes, samples)``, weights."""

    material: Material
    frequencies: Floats
    responses: Floats
    weights: Floats


def render_audio(scene: Scene, sample_rate: int = 44100) -> Floats:
    """Stereo sound of a scene, ``(2, round(8 * sample_rate))`` float32 in [-1, 1]; equal scenes give equal samples."""
    length = round(SECONDS * sample_rate)
    dry = _dry(scene, length, sample_rate)
    peak = float(np.abs(dry).max())
    gain = 10 ** (scene.peak_db / 20) * MATERIALS[scene.material].loudness / peak
    dry *= np.float32(0.8 * gain)  # leaves room for the reverberation
    mixed = _room(scene, dry, sample_rate)
    mixed += _background(scene, length, sample_rate)
    return np.clip(mixed, -1.0, 1.0).astype(np.float32)


# --------------------------------------------------------------------------- contacts


def _dry(scene: Scene, length: int, sample_rate: int) -> Floats:
    """All contacts of all movers without room and background, ``(length,)``."""
    rng = stream(scene.seed, "sound.contacts")
    material = MATERIALS[scene.material]
    family, factor, _ = FORMS[scene.form]
    pitch = material.pitch * factor / scene.size
    fastest = max(v for track in scene.tracks for v in track.speeds)
    out = np.zeros(length, np.float32)
    hardness = HEAD_HARDNESS[scene.head] if scene.kind != "drop" else 1.0
    shared = _body(material, pitch, family, sample_rate, stream(scene.seed, "sound.modes"))
    floor = _body(FLOOR, FLOOR.pitch, "plate", sample_rate, stream(scene.seed, "sound.floor"))
    for number, track in enumerate(scene.tracks):
        body = shared
        if scene.kind == "drop" and number:  # no two objects are tuned alike
            detuned = pitch * float(np.exp(rng.uniform(-0.06, 0.06)))
            body = _body(material, detuned, family, sample_rate, stream(scene.seed, f"sound.modes.{number}"))
        ringing = np.zeros(length, np.float32)
        for time, speed in zip(track.times, track.speeds, strict=True):
            start = round(time * sample_rate)
            _damp(ringing, start, sample_rate)
            _add(ringing, start, _contact(body, speed / fastest, hardness, sample_rate, rng))
            thump = _contact(floor, speed / fastest, 1.0, sample_rate, rng)
            _add(out, start, thump * np.float32(0.25 if scene.kind == "drop" else 0.08))
        out += ringing
    return out


def _body(material: Material, pitch: float, family: str, sample_rate: int, rng: np.random.Generator) -> Body:
    ratios = np.array(MODE_RATIOS[family])
    frequencies = pitch * ratios * np.exp(rng.normal(0, 0.03, ratios.size))
    weights = (1 + np.arange(ratios.size)) ** -material.tilt * np.exp(rng.normal(0, 0.35, ratios.size))
    audible = frequencies < 0.45 * sample_rate
    audible[0] = True
    frequencies, weights = frequencies[audible], weights[audible]
    rates = material.damping + material.damping_slope * (frequencies / 1000) ** material.damping_power
    longest = min(LONGEST, float(-np.log(QUIET) / rates.min()))
    responses = _damped_waves(frequencies, rates, int(longest * sample_rate), sample_rate)
    return Body(material, frequencies.astype(np.float32), responses, weights.astype(np.float32))


def _damped_waves(frequencies: NDArray[Any], rates: NDArray[Any], length: int, sample_rate: int) -> Floats:
    """``exp(-rate t) cos(2 pi f t)`` for every mode, by powers of one complex number: rows times columns."""
    block = 512
    step = (2j * np.pi * frequencies - rates) / sample_rate
    inner = np.exp(step[:, None] * np.arange(block)).astype(np.complex64)
    outer = np.exp(step[:, None] * (block * np.arange(-(-length // block)))).astype(np.complex64)
    product = outer.real[:, :, None] * inner.real[:, None, :]
    product -= outer.imag[:, :, None] * inner.imag[:, None, :]
    waves: Floats = product.reshape(len(frequencies), -1)[:, :length]
    fade = min(length, 512)
    waves[:, -fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return waves


def _contact(body: Body, force: float, hardness: float, sample_rate: int, rng: np.random.Generator) -> Floats:
    """One blow of relative speed ``force`` in (0, 1]: louder and brighter with speed, ``(samples,)``."""
    material = body.material
    cutoff = material.cutoff * hardness * (0.35 + 0.65 * force)
    shaped = body.weights / (1 + (body.frequencies / cutoff) ** 2)
    shaped = shaped * rng.uniform(0.6, 1.0, shaped.size).astype(np.float32)  # another spot, another mixture
    # einsum, not BLAS: one order of summation whatever the number of threads
    blow: Floats = np.einsum("m,mn->n", shaped / np.abs(body.weights).sum(), body.responses)
    # all modes start together at their crest, which the time of contact rounds off
    rise = min(int(sample_rate * min(0.5 / cutoff, 0.0025)) + 2, blow.size)
    blow[:rise] *= np.sin(np.linspace(0, np.pi / 2, rise, dtype=np.float32)) ** 2
    burst = min(int(6 * material.crackle_time * sample_rate), blow.size)
    noise = rng.standard_normal(burst).astype(np.float32)
    noise = _low_pass(noise, min(cutoff, 0.4 * sample_rate), sample_rate)
    noise *= np.exp(-np.arange(burst, dtype=np.float32) / np.float32(material.crackle_time * sample_rate))
    blow[:burst] += np.float32(material.crackle * float(np.abs(blow).max()) / float(np.abs(noise).max())) * noise
    return blow * np.float32(force**EXPONENT)


def _add(out: Floats, start: int, sound: Floats) -> None:
    stop = min(out.size, start + sound.size)
    out[start:stop] += sound[: stop - start]


def _damp(ringing: Floats, start: int, sample_rate: int) -> None:
    """A new contact takes most of the ringing away, within 5 ms."""
    ramp = min(int(0.005 * sample_rate), ringing.size - start)
    ringing[start : start + ramp] *= np.linspace(1, SURVIVES, ramp, dtype=np.float32)
    ringing[start + ramp :] *= np.float32(SURVIVES)


# --------------------------------------------------------------------------- room and background


def _room(scene: Scene, dry: Floats, sample_rate: int) -> Floats:
    """Direct sound in both channels plus a decaying tail of noise, another one in each, ``(2, samples)``."""
    rng = stream(scene.seed, "sound.room")
    delay = int(0.004 * sample_rate)
    size = int(min(scene.reverb_time, 0.6) * sample_rate)
    time = np.arange(size, dtype=np.float32) / sample_rate
    tail = rng.standard_normal((2, size), np.float32) * np.exp(-np.float32(6.91 / scene.reverb_time) * time)
    tail = _low_pass(tail, 3000.0, sample_rate)  # air and walls swallow the treble
    tail *= np.float32(10 ** (scene.reverb_db / 20)) / np.sqrt((tail**2).sum(axis=1, keepdims=True))
    wet = np.zeros((2, delay + size), np.float32)
    wet[:, delay:] = tail
    out: Floats = signal.oaconvolve(dry[None], wet, axes=1)[:, : dry.size].astype(np.float32)
    out[:, : round(scene.onsets[0] * sample_rate)] = 0  # the transform's rounding, about 1e-8
    out += dry
    return out


def _background(scene: Scene, length: int, sample_rate: int) -> Floats:
    """Noise floor, mains hum and wind at their levels, ``(2, length)``."""
    rng = stream(scene.seed, "sound.background")
    out = _coloured(rng, scene.noise, length, sample_rate) * np.float32(10 ** (scene.noise_db / 20))
    time = np.arange(length, dtype=np.float32) / sample_rate
    if scene.hum_db > -100:
        turn = np.float32(2 * np.pi * scene.hum_hz) * time
        hum = np.sin(turn) + 0.5 * np.sin(2 * turn + 1) + 0.25 * np.sin(4 * turn + 2)
        out += hum.astype(np.float32) * np.float32(10 ** (scene.hum_db / 20))
    if scene.wind_db > -100:
        knots = rng.uniform(0.2, 1.0, 12)
        gusts = np.interp(time, np.linspace(0, SECONDS, 12), knots).astype(np.float32)
        wind = _coloured(rng, "wind", length, sample_rate)
        out += wind * gusts * np.float32(10 ** (scene.wind_db / 20))
    return out.astype(np.float32)


def _coloured(rng: np.random.Generator, colour: str, length: int, sample_rate: int) -> Floats:
    """Two channels of noise of unit power, ``(2, length)``: white, pink (about -3 dB/octave), brown, or wind."""
    white = rng.standard_normal((2, length), np.float32)
    if colour == "white":
        return white
    if colour == "wind":
        out = _low_pass(_low_pass(white, 250.0, sample_rate), 140.0, sample_rate)
    elif colour == "brown":
        out = _low_pass(white, 60.0, sample_rate)
    else:  # three low-passes: a decade wider, half a decade weaker
        out = _low_pass(white, 30.0, sample_rate)
        out += _low_pass(white, 300.0, sample_rate) * np.float32(10**-0.5)
        out += _low_pass(white, 3000.0, sample_rate) * np.float32(0.1)
    out /= np.sqrt((out**2).mean(axis=1, keepdims=True))
    return out


def _low_pass(wave: Floats, corner: float, sample_rate: int) -> Floats:
    """One-pole low-pass along the last axis; ``corner`` in Hz."""
    pole = math.exp(-2 * math.pi * corner / sample_rate)
    numerator, denominator = np.array([1 - pole], np.float32), np.array([1, -pole], np.float32)
    out: Floats = signal.lfilter(numerator, denominator, wave).astype(np.float32, copy=False)
    return out
