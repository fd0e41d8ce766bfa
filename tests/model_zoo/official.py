"""Stand-ins for the official repositories: scripts of the standard library with the stages, files and folders of each.

Every stage hands a story on in the file it writes for the next one: which scripts ran, in which environment and
folder, on which video and with which texts. The last one writes the story as the samples of a wav file.
"""

from __future__ import annotations

import json
from pathlib import Path

import soundfile

LIBRARY = '''
import csv, hashlib, json, os, sys, time, wave
from importlib.metadata import version
from pathlib import Path

def arguments():
    """Pairs of --flag value, and key=value."""
    found, rest = {}, sys.argv[1:]
    while rest:
        key = rest.pop(0)
        found.update([key.split("=", 1)] if "=" in key else [(key.lstrip("-"), rest.pop(0))])
    return found

def only(folder, pattern="*"):
    (found,) = Path(folder).glob(pattern)
    return found

def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()

def told(story, **more):
    """The story with this stage; it breaks off where broken.json says so."""
    script = Path(sys.argv[0]).name
    story = dict(story, **more)
    numpy = version("numpy")
    story["seeds"] = story.get("seeds", []) + ([seed] if (seed := arguments().get("seed")) else [])
    story["stages"] = story.get("stages", []) + [[script, numpy, Path.cwd().name]]
    broken = Path(__file__).with_name("broken.json")
    if broken.exists() and json.loads(broken.read_text()) == [script, story["video"]]:
        print("loading weights")
        print("CUDA out of memory", file=sys.stderr)
        sys.exit(3)
    return story

def save(folder, name, story):
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(story), encoding="utf8")

def load(path):
    return json.loads(Path(path).read_text(encoding="utf8"))

def sound(folder, name, story, channels=1, rate=16000):
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = json.dumps(story).encode("ascii").ljust(8 * rate)
    with wave.open(str(path), "wb") as handle:
        handle.setnchannels(channels)
        handle.setsampwidth(2)
        handle.setframerate(rate)
        handle.writeframes(b"".join(bytes([value, 0]) * channels for value in frames))
'''

HEAD = """
import sys
from pathlib import Path
sys.path.insert(0, str(next(p for p in Path(__file__).parents if (p / "library.py").exists())))
from library import *
a = arguments()
"""

FEATURES = "v = only(a['videos'])\nsave(a['features'], v.stem + '{suffix}', told({{}}, video=digest(v)))\n"
DECODE = "f = only(a['{source}'])\nsound(a['out'], f.stem + '.wav', told(load(f)))\n"

SCRIPTS: dict[str, dict[str, str]] = {
    "rewas": {
        "inference.py": "(line,) = open(a['testlist'], encoding='utf8').readlines()\n"
        "row = json.loads(line)\n"
        "v = only(a['videos'], row['video_name'] + '.*')\n"
        "story = told({}, video=digest(v), caption=row['prompt'], seconds=a['duration'], weights=a['ckpt'])\n"
        "sound(a['out'], row['video_name'] + '.wav', story)\n",
    },
    "seeing-and-hearing": {
        "v2a/key_frames.py": "v = only(a['videos'])\n"
        "for i in range(3): save(a['frames'], v.stem + '/%d.png' % i, told({}, video=digest(v)))\n",
        "v2a/caption.py": "v = only(a['frames'])\n"
        "save(a['captions'], v.name + '.json', told(load(v / '0.png'), frames=len(list(v.iterdir()))))\n",
        "v2a/generate.py": "v = only(a['videos'])\n"
        "story = told(load(only(a['captions'])))\n"
        "assert story['video'] == digest(v)\n"
        "sound(a['out'], v.stem + '.wav', story)\n",
    },
    "v-aura": {
        "generate.py": "v = only(a['data.path'])\n"
        "assert abs(float(a['duration']) / 0.64 - round(float(a['duration']) / 0.64)) < 1e-6\n"
        "assert (a['top_k'], a['cfg'], a['temp']) == ('128', '6.0', '1.0')\n"
        "story = told({}, video=digest(v), seconds=a['duration'])\n"
        "sound(a['out'], 'generated/' + v.stem + '/audio.wav', story, rate=44100)\n",
    },
    "frieren": {
        "cavp/extract.py": FEATURES.format(suffix=".npz"),
        "mel.py": "f = only(a['features'], '*.npz')\n"
        "assert (a['t'], a['scale'], a['n']) == ('26', '4.5', '1')\n"
        "save(a['mels'], f.stem + '_0.npy', told(load(f)))\n",
        "vocoder.py": DECODE.format(source="mels"),
    },
    "vatt": {
        "eva_clip.py": FEATURES.format(suffix=".npy"),
        "generate.py": "f = only(a['features'])\n"
        "text = open(a['text'], encoding='utf8', newline='').read()\n"
        "config = open(a['config'], encoding='utf8').read()\n"
        "save(a['tokens'], f.stem + '.json', told(load(f), caption=text, config=config))\n",
        "audiocraft/decode.py": DECODE.format(source="tokens"),
    },
    "thinksound": {
        "extract_latents.py": "(row,) = csv.DictReader(open(a['csv'], encoding='utf8', newline=''))\n"
        "v = only(a['root'], row['id'] + '.*')\n"
        "story = told({}, video=digest(v), caption=row['caption'], cot=row['caption_cot'])\n"
        "save(a['latents'], row['id'] + '.npz', story)\n",
        "predict.py": "f = only(a['latents'])\n"
        "folder = time.strftime('%m%d') + '_batch_size1/audios'\n"
        "sound(a['results'], folder + '/' + f.stem + '.wav', told(load(f), seconds=a['duration']), 2, 44100)\n"
        "(Path(a['results']) / 'log.txt').write_text('done')\n",
    },
    "prismaudio": {
        "features.py": "(row,) = csv.DictReader(open(a['csv'], encoding='utf8', newline=''))\n"
        "v = only(a['root'], row['id'] + '.*')\n"
        "story = told({}, video=digest(v), caption=row['caption'], cot=row['caption_cot'])\n"
        "save(a['features'], row['id'] + '.npz', story)\n",
        "predict.py": "f = only(a['features'])\nsound(a['out'], f.stem + '.wav', told(load(f)), 2, 44100)\n",
    },
}

# What a user who has read the official code writes into the open places.
VIDEOS = {"<flag of the video folder>": "--videos", "<flag of the output folder>": "--out"}
SEED = {"<flag of the seed>": "--seed"}
FEATURE_FLAG = {"<flag of the feature folder>": "--features"}
FILLED: dict[str, dict[str, str]] = {
    "rewas": {
        **SEED,
        **VIDEOS,
        "<script of the inference>": "inference.py",
        "<flag of the test list>": "--testlist",
        "<flag of the checkpoints>": "--ckpt",
    },
    "seeing-and-hearing": {
        **SEED,
        **VIDEOS,
        "<script of the key frames>": "key_frames.py",
        "<script of the captions by Qwen-VL>": "caption.py",
        "<script of the generation>": "generate.py",
        "<flag of the frame folder>": "--frames",
        "<flag of the captions>": "--captions",
    },
    "v-aura": {
        "<script of the inference>": "generate.py",
        "<setting of the video folder>": "data.path",
        "<setting of the duration, a multiple of 0.64 s>": "duration",
        "<setting of top_k>": "top_k",
        "<setting of cfg>": "cfg",
        "<setting of the seed>": "seed",
        "<setting of the temperature>": "temp",
        "<setting of the output folder>": "out",
    },
    "frieren": {
        **SEED,
        **VIDEOS,
        **FEATURE_FLAG,
        "<script of the CAVP features>": "cavp/extract.py",
        "<script of the mel>": "mel.py",
        "<script of the vocoder>": "vocoder.py",
        "<flag of the mel folder>": "--mels",
        "<flag for one sample per item>": "-n",
    },
    "vatt": {
        **SEED,
        **VIDEOS,
        **FEATURE_FLAG,
        "<script of the EVA-CLIP features>": "eva_clip.py",
        "<script of the generation>": "generate.py",
        "<script of the decoder>": "audiocraft/decode.py",
        "<flag of the configuration>": "--config",
        "<flag of the text>": "--text",
        "<flag of the token folder>": "--tokens",
        "<the official configuration, with its paths replaced>": "'{{seed: {seed}, tokens: {work}/tokens}}'",
    },
    "thinksound": {
        **SEED,
        "<flag of the video folder>": "--root",
        "<flag of the table>": "--csv",
        "<flag of the latent folder>": "--latents",
        "<flag of the duration>": "--duration",
        "<flag of the output folder>": "--results",
    },
    "prismaudio": {
        **SEED,
        **FEATURE_FLAG,
        "<flag of the video folder>": "--root",
        "<flag of the table>": "--csv",
        "<script of the features>": "features.py",
        "<script of the prediction>": "predict.py",
        "<flag of the output folder>": "--out",
    },
}


def write_repository(folder: Path, name: str) -> Path:
    """The stand-in of one model below ``folder``."""
    for script, body in SCRIPTS[name].items():
        path = folder / script
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + body)
    (folder / "library.py").write_text(LIBRARY)
    return folder


def story(path: Path) -> dict[str, object]:
    """What a wav file of a stand-in tells."""
    data, _ = soundfile.read(path, dtype="int16", always_2d=True)
    return dict(json.loads(bytes(data[:, 0].astype("uint8")).decode("ascii")))
