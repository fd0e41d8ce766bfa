# ruff: noqa: E501 - lines of official signatures
"""Drivers that import official code, each started against a stand-in with the official files, classes and signatures.

The stand-ins follow the pinned revisions in names and arguments, and compute nothing: they note which seed, text and
settings reached the official function.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
from typer.testing import CliRunner

from av_bench.cli.baselines import app
from av_bench.contracts import Clip, ClipSet, Generated, GenerationJob, clip_seed
from model_zoo.baselines import baseline, load, load_manifest, manifest_names
from tests.media_files import tone, write_video

NOTE = """
import json
from pathlib import Path
NOTES = Path(__file__).resolve()
while not (NOTES / "notes.py").exists():
    NOTES = NOTES.parent
def note(**said):
    with open(NOTES / "notes.jsonl", "a") as handle:
        handle.write(json.dumps(said, default=str) + chr(10))
"""
TORCH = '''
"""As much of torch as drivers and stand-ins use, on numpy: importing the real one takes seconds."""
import contextlib
import numpy as np
class Tensor(np.ndarray):
    def float(self): return self.astype("float32")
    def detach(self): return self
    cpu = detach
    def to(self, *a, **k): return self
    def numpy(self): return np.asarray(self)
    def numel(self): return self.size
    def unsqueeze(self, axis): return tensor(np.expand_dims(self, axis))
    def view(self, *shape): return tensor(np.reshape(np.asarray(self), shape))
def tensor(data): return np.ndarray.view(np.asarray(data), Tensor)
as_tensor = tensor
def zeros(*shape, device=None): return tensor(np.zeros(shape, "float32"))
def randn(*shape): return tensor(np.random.standard_normal(shape))
def arange(stop): return tensor(np.arange(stop))
def sin(data): return tensor(np.sin(data))
float64 = "torch.float64"
seed = [None]
def manual_seed(value): seed[0] = value; np.random.seed(value)
def initial_seed(): return seed[0]
class inference_mode(contextlib.ContextDecorator):
    def __enter__(self): return self
    def __exit__(self, *error): return False
no_grad = inference_mode
class cuda:
    is_available = staticmethod(lambda: False)
'''
WAVE = "import torch, numpy\nfrom notes import note\n"
PIPE = (
    "class Weights:\n    def __init__(self, *a, **k): pass\n    def to(self, device): return self\n"
    "    def eval(self): return self\n    def requires_grad_(self, on): return self\n"
    "    def load_state_dict(self, state): note(state=state)\n"
    "    def parameters(self): return [torch.zeros(7)]\n"
    "    @property\n    def model(self): return self\n"
)
STANDINS: dict[str, dict[str, str]] = {
    "tango": {
        "huggingface_hub.py": "def snapshot_download(repo_id): raise OSError('offline: ' + repo_id)\n",
        "tango.py": WAVE + "from huggingface_hub import snapshot_download\n"
        "class Tango:\n"
        "    def __init__(self, name='declare-lab/tango', device='cuda:0'):\n"
        "        path = snapshot_download(repo_id=name)\n"
        "        json_file = open('{}/vae_config.json'.format(path))\n"
        "        note(path=path, device=device)\n"
        "        self.model = self\n"
        "    def generate_for_batch(self, prompts, steps=100, guidance=3, samples=1, batch_size=8, disable_progress=True):\n"
        "        note(prompts=prompts, steps=steps, guidance=guidance, seed=torch.initial_seed())\n"
        "        return [(numpy.sin(numpy.arange(163872) / 9) * 9000).astype('int16')]\n",
    },
    "foleycrafter": {
        "huggingface_hub.py": "def snapshot_download(name, local_dir=None): raise OSError('offline: ' + name)\n",
        "transformers.py": WAVE + "class CLIPVisionModelWithProjection:\n"
        "    @classmethod\n"
        "    def from_pretrained(cls, name, subfolder=None):\n"
        "        note(encoder=name, subfolder=subfolder)\n        return cls()\n"
        "    def to(self, device): return self\n",
        "foleycrafter/__init__.py": "",
        "foleycrafter/utils/util.py": WAVE
        + "def build_foleycrafter(pretrained_model_name_or_path='auffusion/auffusion-full-no-adapter'):\n"
        "    note(base=pretrained_model_name_or_path)\n    return 'pipe'\n",
        "inference.py": "import glob, os\nimport soundfile as sf\n"
        + WAVE
        + "from huggingface_hub import snapshot_download\nfrom transformers import CLIPVisionModelWithProjection\n"
        "from foleycrafter.utils.util import build_foleycrafter\n"
        "def build_models(config):\n"
        "    if not os.path.isdir(config.pretrain): snapshot_download(config.pretrain)\n"
        "    fc_ckpt = snapshot_download('ymzhang319/FoleyCrafter', local_dir=config.ckpt)\n"
        "    note(fc_ckpt=fc_ckpt, there=os.path.isfile(os.path.join(config.ckpt, 'temporal_adapter.ckpt')))\n"
        "    return build_foleycrafter(), 'vocoder', config.semantic_scale\n"
        "def run_inference(config, pipe, vocoder, time_detector):\n"
        "    (video,) = glob.glob(f'{config.input}/*.mp4')\n"
        "    CLIPVisionModelWithProjection.from_pretrained('h94/IP-Adapter', subfolder='models/image_encoder').to('cuda')\n"
        "    note(prompts=[config.prompt], negative=config.nprompt, scale=config.temporal_scale, seed=config.seed)\n"
        "    os.makedirs(os.path.join(config.save_dir, 'audio'))\n"
        "    wave = 0.1 * numpy.sin(numpy.arange(128000) / 9)\n"
        "    sf.write(os.path.join(config.save_dir, 'audio', 'clip.wav'), wave, 16000)\n",
    },
    "audiox": {
        "stable_audio_tools/__init__.py": "",
        "stable_audio_tools/data/utils.py": WAVE
        + "def read_video(filepath, seek_time=0., duration=-1, target_fps=2):\n"
        "    note(video=filepath is not None)\n    return torch.zeros(int(duration * target_fps), 3, 2, 2)\n"
        "def load_and_process_audio(audio_path, sample_rate, seconds_start, seconds_total):\n"
        "    return torch.zeros(2, int(sample_rate * seconds_total))\n",
        "stable_audio_tools/models/factory.py": WAVE
        + PIPE
        + "def create_model_from_config(config): return Weights()\n",
        "stable_audio_tools/models/utils.py": "def load_ckpt_state_dict(path): return open(path).read()\n",
        "stable_audio_tools/inference/generation.py": WAVE
        + "def generate_diffusion_cond(model, steps=250, cfg_scale=6, conditioning=None, conditioning_tensors=None,\n"
        "        negative_conditioning=None, negative_conditioning_tensors=None, batch_size=1, sample_size=2097152,\n"
        "        sample_rate=48000, seed=-1, device='cuda', init_audio=None, init_noise_level=1.0, mask_args=None,\n"
        "        return_latents=False, **sampler_kwargs):\n"
        "    (given,) = conditioning\n"
        "    assert given['audio_prompt'].shape == (1, 2, 441000) and given['video_prompt'][0].shape[1] == 50\n"
        "    note(prompts=[given['text_prompt']], steps=steps, guidance=cfg_scale, seed=seed, **sampler_kwargs)\n"
        "    return 0.1 * torch.sin(torch.arange(2 * sample_size) / 9).view(1, 2, sample_size)\n",
    },
    "audiox-turbo": {
        "audiox_turbo/__init__.py": "",
        "audiox_turbo/data/utils.py": WAVE + "def read_video(filepath, seek_time=0., duration=-1, target_fps=2):\n"
        "    note(video=filepath is not None)\n    return torch.zeros(int(duration * target_fps), 3, 2, 2)\n"
        "def load_and_process_audio(audio_path, sample_rate, seconds_start, seconds_total):\n"
        "    return torch.zeros(2, int(sample_rate * seconds_total))\n"
        "def encode_video_with_synchformer(path, start, seconds, device): return torch.zeros(1, 240, 768)\n",
        "audiox_turbo/inference/__init__.py": WAVE
        + PIPE
        + "def load_audiox_turbo_model(config_path, ckpt_path, pretransform_ckpt_path, device='cuda'):\n"
        "    note(files=[open(ckpt_path).read(), open(pretransform_ckpt_path).read()], config=config_path)\n"
        "    return Weights(), {'sample_rate': 44100, 'sample_size': 485100, 'video_fps': 5}\n",
        "audiox_turbo/inference/generation.py": WAVE
        + "def generate_diffusion_cond_dmd(model, steps, conditioning, sample_size, seed, device):\n"
        "    (given,) = conditioning\n"
        "    assert set(given['video_prompt']) == {'video_tensors', 'video_sync_frames'}\n"
        "    note(prompts=[given['text_prompt']], steps=steps, seed=seed, seconds=given['seconds_total'])\n"
        "    return 0.1 * torch.sin(torch.arange(2 * sample_size) / 9).view(1, 2, sample_size)\n",
    },
    "woosh-vflow": {
        "woosh/__init__.py": "",
        "woosh/components/base.py": "class LoadConfig:\n    def __init__(self, path): self.path = path\n",
        "woosh/utils/video.py": WAVE + PIPE + "class SynchformerProcessor(Weights):\n"
        "    def __call__(self, frames, rate): return {'synch_out': frames}\n",
        "woosh/utils/videoio.py": WAVE + "def extract_video_frames(path, start_time, end_time):\n"
        "    note(video=True)\n    return torch.zeros(4, 3, 2, 2), 24, [0]\n",
        "woosh/model/video_kontext.py": WAVE + PIPE + "class VideoKontext(Weights):\n"
        "    def __init__(self, config): note(path=config.path)\n"
        "    def get_cond(self, given, no_dropout, device): return given\n"
        "    @property\n    def autoencoder(self): return self\n"
        "    def inverse(self, latent): return 0.1 * torch.sin(torch.arange(384000) / 9).view(1, 1, -1)\n",
        "woosh/inference/flowmatching_sampler.py": WAVE
        + "def flowmatching_integrate(ldm, noise, cond, cond_neg=None, negative_text_only=True, cfg=4.5, device='cuda',\n"
        "        method='dopri5', rtol=1e-3, atol=1e-3, return_steps=False, **fm_kwargs):\n"
        "    note(prompts=cond['description'], guidance=cfg, seed=torch.initial_seed(), shape=list(noise.shape), **fm_kwargs)\n"
        "    return noise\n",
    },
}
STANDINS["tango2"] = STANDINS["tango"]
STANDINS["woosh-dvflow"] = {
    **{key: text for key, text in STANDINS["woosh-vflow"].items() if "kontext" not in key and "matching" not in key},
    "woosh/model/flowmap_from_pretrained.py": STANDINS["woosh-vflow"]["woosh/model/video_kontext.py"].replace(
        "VideoKontext", "FlowMapFromPretrained"
    ),
    "woosh/inference/flowmap_sampler.py": WAVE
    + "def sample_euler(model, noise, cond, num_steps=4, renoise=0.0, cfg=4.0, t=None):\n"
    "    note(prompts=cond['description'], guidance=cfg, seed=torch.initial_seed(), steps=num_steps, renoise=renoise)\n"
    "    return noise\n",
}
WEIGHTS = {
    "tango": {"vae_config.json": "{}", "pytorch_model_main.bin": "x"},
    "foleycrafter": {"temporal_adapter.ckpt": "x", "auffusion/vae/config.json": "{}", "IP-Adapter/x": "x"},
    "audiox": {
        "model.ckpt": "weights",
        "config.json": '{"sample_rate": 44100, "sample_size": 485100, "video_fps": 5}',
    },
    "audiox-turbo": {"audiox_turbo/audiox_turbo.ckpt": "student", "pretransform/vae.ckpt": "vae"},
    "woosh-vflow": {"Woosh-VFlow-8s/weights.safetensors": "x"},
    "woosh-dvflow": {"Woosh-DVFlow-8s/weights.safetensors": "x"},
}
WEIGHTS["tango2"] = WEIGHTS["tango"]
SETTINGS: dict[str, dict[str, Any]] = {  # what has to reach the official functions
    "tango": {"steps": 200, "guidance": 3.0},
    "tango2": {"steps": 200, "guidance": 3.0},
    "foleycrafter": {"scale": 0.2, "subfolder": "models/image_encoder"},
    "audiox": {"steps": 250, "guidance": 7.0, "sigma_min": 0.3, "sigma_max": 500.0, "sampler_type": "dpmpp-3m-sde"},
    "audiox-turbo": {"steps": 4, "seconds": 8, "config": "configs/audiox_turbo_infer_4step.json"},
    "woosh-vflow": {"guidance": 4.5, "shape": [1, 128, 801], "dtype": "torch.float64"},
    "woosh-dvflow": {"guidance": 3.0, "steps": 4, "renoise": [0, 0.5, 0.5, 0.3]},
}
TEXT = 'a "dog" barks, {twice}'


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, ...]:
    """Two videos of 8 s."""
    folder = tmp_path_factory.mktemp("videos")
    for name in ("one", "two"):
        write_video(folder / f"{name}.mp4", seconds=8, fps=12, size=48, audio=tone(8.0))
    return tuple(Clip(name, folder / f"{name}.mp4", text=TEXT) for name in ("one", "two"))


def write_all(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def run(tmp_path: Path, name: str, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """The samples of a driver that was set up as a user would; and what its stand-in noted."""
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(load, "_has_cuda", lambda: True)
    repo = write_all(tmp_path / "repo", {**STANDINS[name], "notes.py": NOTE, "torch.py": TORCH})
    weights = write_all(tmp_path / "weights", WEIGHTS[name])
    arguments = ["setup", name, "--python", sys.executable, "--repo", str(repo), "--weights", str(weights)]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    generator = baseline(name, **options)
    generator.setup(ClipSet("toy", "1", clips), 8.0, 0)
    (tmp_path / "made").mkdir()

    def place(clip_id: str, k: int, payload: bytes, suffix: str) -> Path:
        path = tmp_path / f"made/{clip_id}~{k}{suffix}"
        path.write_bytes(payload)
        return path

    job = GenerationJob(clips, tuple((c, 0) for c in clips), 0, 1, "cpu", tmp_path / "external", place)
    found: dict[str, Generated] = {g.clip_id: g for g in generator.produce(job)}
    notes = [json.loads(line) for line in (repo / "notes.jsonl").read_text().splitlines()] if found else []
    return found, notes


@pytest.mark.parametrize("name", sorted(STANDINS))
def test_the_driver_starts_and_makes_a_wav_of_every_clip(
    name: str, tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, notes = run(tmp_path, name, clips, monkeypatch)
    manifest = load_manifest(name)
    for clip in clips:
        path = found[clip.id].path
        assert path is not None, found[clip.id].detail
        data, rate = soundfile.read(path, always_2d=True)
        assert rate == (manifest.native.rate or 44_100)
        assert len(data) >= 8 * rate
        assert abs(data).max() > 0.05
    assert [n["prompts"] for n in notes if "prompts" in n] == [[TEXT], [TEXT]]
    assert [n["seed"] for n in notes if "seed" in n] == [clip_seed(0, c.id, 0) % 2**32 for c in clips]
    said = {key: value for n in notes for key, value in n.items()}
    assert {key: said.get(key) for key in SETTINGS[name]} == SETTINGS[name]
    if name == "foleycrafter":
        weights = str(tmp_path / "weights")
        assert said["there"]
        assert (said["base"], said["encoder"], said["fc_ckpt"]) == (
            f"{weights}/auffusion",
            f"{weights}/IP-Adapter",
            weights,
        )
        assert sum("encoder" in n for n in notes) == 1  # not once per clip


def test_every_driver_has_its_stand_in() -> None:
    """A driver that is not started here is not called startable."""
    started = {name for name in manifest_names() if "{drivers}/start.py" in load_manifest(name).driver.command}
    assert started == set(STANDINS)


def test_options_the_official_code_does_not_have_are_refused(
    tmp_path: Path, clips: tuple[Clip, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError):  # it ends before anything official is asked
        run(tmp_path, "foleycrafter", clips, monkeypatch, steps=50.0)
    assert "has 25 steps" in (tmp_path / "external/log.txt").read_text()
