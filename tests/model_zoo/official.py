# ruff: noqa: E501 - lines of official signatures
"""Stand-ins for the official repositories: scripts of the standard library with the file names, the flags, the classes
and the functions of the pinned revisions, and nothing of what they compute.

Every stage hands a story on in the file it writes for the next one: which scripts ran, in which environment and
folder, on which video, with which texts and seeds. The last one writes the story as the samples of a wav file. What
loads weights notes it in ``loads.txt``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import soundfile

LIBRARY = '''
import argparse, csv, hashlib, json, os, random, sys, time, wave
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent

def official(flags):
    """The official parser: options by name, aliases after a slash, switches with an exclamation mark."""
    parser = argparse.ArgumentParser()
    for flag in flags.split():
        names = [n if n.startswith("-") else "--" + n for n in flag.rstrip("!").split("/")]
        parser.add_argument(*names, **({"action": "store_true"} if flag.endswith("!") else {}))
    return parser.parse_args()

def loaded(what):
    random.random()  # as building a network does
    with open(HERE / "loads.txt", "a") as handle:
        handle.write(what + chr(10))
    return what

class Loads:
    """A class whose from_pretrained (or the like) loads weights."""
    @classmethod
    def from_pretrained(cls, name, **more):
        return loaded(cls.__name__ + " " + Path(name).name)
    load_from_checkpoint = get_pretrained = from_pretrained

def only(folder, pattern="*"):
    (found,) = Path(folder).glob(pattern)
    return found

def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()

def told(story, seed=None, **more):
    """The story with this stage; it breaks off where broken.json says so."""
    script = Path(sys.argv[0]).name
    story = dict(story, **more)
    story["seeds"] = story.get("seeds", []) + ([str(seed)] if seed is not None else [])
    story["stages"] = story.get("stages", []) + [[script, version("numpy"), Path.cwd().name]]
    broken = HERE / "broken.json"
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

def sound(path, story, channels=1, rate=16000):
    path = Path(path)
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
"""

TRANSFORMERS = "".join(
    f"class {name}(Loads): pass\n"
    for name in (
        "AutoModel",
        "AutoTokenizer",
        "AutoProcessor",
        "T5EncoderModel",
        "LlamaTokenizer",
        "AutoModelForCausalLM",
    )
)
PREDICT = (
    "from {package}.models.utils import load_ckpt_state_dict\n"
    "a = official('--model-config --ckpt-dir --pretransform-ckpt-path --duration-sec --results-dir --save-dir --seed')\n"
    "load_ckpt_state_dict(a.pretransform_ckpt_path)\n"
    "story = told(load(Path(a.results_dir) / 'demo.npz'), seed=a.seed, seconds=a.duration_sec, weights=a.ckpt_dir)\n"
    "sound(Path(a.save_dir) / (time.strftime('%m%d') + '_batch_size1') / 'demo.wav', story, 2, 44100)\n"
)
UTILS = "def load_ckpt_state_dict(path, prefix=None): return loaded('state ' + Path(path).name)\n"
GEN_WAV = (
    "class VocoderBigVGAN:\n    def __init__(self, path): loaded('vocoder')\n"
    "def initialize_model(config, ckpt): return loaded('model ' + Path(ckpt).name)\n"
    "if __name__ == '__main__':\n"
    "    a = official('--prompt {more}--ddim_steps --duration --n_samples --scale --save_name')\n"
    "    sampler, vocoder = initialize_model('c.yaml', 'm.ckpt'), VocoderBigVGAN('useful_ckpts/bigvgan')\n"
    "    assert (a.duration, a.n_samples, a.ddim_steps) == ('10', '1', '100')\n"
    "    story = told({{}}, seed=random.getrandbits(32), caption=a.prompt, video=None{keep})\n"
    "    sound(a.save_name + '_0.wav', story)\n"
)

# Scripts in the order they run, then modules that they import.
SCRIPTS: dict[str, dict[str, str]] = {
    "rewas": {
        "test.py": "def build_control_model(**more): return loaded('control')\n"
        "def get_pretrained(name, device): return loaded('encoder ' + name)\n"
        "if __name__ == '__main__':\n"
        "    a = official('--testlist --datadir --file_path/-f --save_path/-s --model_name --ckpt_path/-ckpt"
        " --phi_ckpt_path --synchformer_exp --batchsize/-b --ddim_steps --guidance_scale/-gs --duration/-dur"
        " --n_candidate_gen_per_cond/-n --seed --config --control_type --re_encode!')\n"
        "    build_control_model(ckpt_path=a.ckpt_path), get_pretrained('24-01-04T16-39-21', 0)\n"
        "    for line in open(a.testlist, encoding='utf8'):\n"
        "        row = json.loads(line)\n"
        "        v = Path(row['video_name'])\n"
        "        story = told({}, seed=a.seed, video=digest(v), caption=row['prompt'], seconds=a.duration)\n"
        "        sound(Path(a.save_path) / ('generated_%s_0.wav' % v.name[:-4]), story)\n",
    },
    "seeing-and-hearing": {
        "v2a/extract_key_frame.py": "a = official('--root --out_root')\n"
        "for v in sorted(Path(a.root).glob('*mp4')): save(a.out_root, v.stem + '_0.jpeg', told({}, video=digest(v)))\n",
        "v2a/qwen_caption.py": "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "a = official('--imgdir --exist --prompt')\n"
        "tokenizer = AutoTokenizer.from_pretrained('qwen_ckpt/Qwen-VL-Chat', trust_remote_code=True)\n"
        "model = AutoModelForCausalLM.from_pretrained('qwen_ckpt/Qwen-VL-Chat', device_map='cuda')\n"
        "for f in Path(a.imgdir).glob('*.jpeg'): f.with_suffix('.txt').write_text(json.dumps(told(load(f))))\n",
        "v2a/video2audio.py": "from audioldm.pipelines.pipeline_audioldm import AudioLDMPipeline\n"
        "from audioldm.models.unet import UNet2DConditionModel\n"
        "args = official('--eval_set_root --out_root --prompt_root --optimize_text! --double_loss! --start --end"
        " --init_latents! --seed')\n"
        "unet = UNet2DConditionModel.from_pretrained('ckpt/audioldm-m-full', subfolder='unet')\n"
        "pipe = AudioLDMPipeline.from_pretrained('ckpt/audioldm-m-full', unet=unet)\n"
        "assert args.double_loss and args.init_latents\n"
        "config_seed_dict = {'0jZtLuEdjrk_000110':30}\n"
        "for v in sorted(Path(args.eval_set_root).glob('*.mp4')):\n"
        "    video_name = v.stem\n"
        "    seed = config_seed_dict[video_name]\n"
        "    text = Path(args.prompt_root) / (video_name + '_0.txt')\n"
        "    story = told(json.loads(text.read_text()), seed=seed)\n"
        "    assert story['video'] == digest(v)\n"
        "    folder = Path(args.out_root + '_inf_steps30_lr0.1') / v.parent.name\n"
        "    sound(folder / ('name_%s_seed%s.wav' % (video_name, seed)), story)\n",
        "v2a/transformers.py": TRANSFORMERS,
        "v2a/audioldm/pipelines/pipeline_audioldm.py": "class AudioLDMPipeline(Loads): pass\n",
        "v2a/audioldm/models/unet.py": "class UNet2DConditionModel(Loads): pass\n",
    },
    "v-aura": {
        "main.py": "from models.vaura_model import VAURAModel\n"
        "def seed_everything(seed): random.seed(seed)\n"
        "def main():\n"
        "    cfg = dict(part.split('=', 1) for part in sys.argv[1:])\n"
        "    seed_everything(int(cfg.pop('trainer.seed', 666)))\n"
        "    assert cfg.pop('config') == 'configs/generate_vgg.yaml'\n"
        "    out = Path(cfg.pop('out_path')) / ('generated_samples_' + cfg.pop('start_time'))\n"
        "    out.mkdir(parents=True, exist_ok=False)\n"
        "    VAURAModel.load_from_checkpoint(cfg.pop('experiment_path'))\n"
        "    seconds = cfg.pop('duration')\n"
        "    assert abs(float(seconds) / 0.64 - round(float(seconds) / 0.64)) < 1e-6\n"
        "    rows = list(csv.reader(open(cfg.pop('dataloader.meta_file'))))[1:]\n"
        "    known = {'%s_%d_%d' % (r[0], int(r[1]) * 1000, (int(r[1]) + 10) * 1000) for r in rows if r[2]}\n"
        "    split = Path(cfg.pop('dataloader.split_dir'))\n"
        "    assert 'vggsound' in split.name and cfg.pop('dataloader.included_files') == 'null'\n"
        "    for name in known & set((split / 'vggsound_test.txt').read_text().splitlines()):\n"
        "        v = Path(cfg['dataloader.data_dir']) / (name + '.mp4')\n"
        "        sound(out / (name + '.wav'), told({}, seed=random.getrandbits(32), video=digest(v), seconds=seconds),"
        " rate=44100)\n"
        "if __name__ == '__main__':\n    main()\n",
        "models/vaura_model.py": "class VAURAModel(Loads): pass\n",
    },
    "frieren": {
        "script/data_preprocess/extract_cavp_feature.py": "import cfm\n"
        "class Extract_CAVP_Features:\n"
        "    def __init__(self, **more): loaded('cavp')\n"
        "    def __call__(self, path, start, end): return told({}, video=digest(path))\n"
        "if __name__ == '__main__':\n"
        "    args = official('--item-list-path --cavp-config-path --cavp-ckpt-path --video-path --output-dir')\n"
        "    extract_cavp = Extract_CAVP_Features(ckpt_path=args.cavp_ckpt_path)\n"
        "    for item in open(args.item_list_path).readlines():\n"
        "        save(args.output_dir, item.strip() + '.npz', extract_cavp(Path(args.video_path) / (item.strip() + '.mp4'), 0, 10))\n",
        "script/generate_mel_cfm_cfg_scale.py": "def load_model_from_config(config, ckpt): return loaded('cfm')\n"
        "def seed_everything(seed): random.seed(seed)\n"
        "def generate_mel(a):\n"
        "    seed_everything(21)\n"
        "    load_model_from_config(a.config, a.ldm)\n"
        "    for f in sorted(Path(a.cavp_feature).glob('*.npz')):\n"
        "        folder = 'CFG%s_%s_%s' % (float(a.scale), a.solver, a.timesteps)\n"
        "        name = 'Y' + f.stem + '_%d.npy' % (int(a.sample_num) - 1)\n"
        "        save(Path(a.out_dir) / folder, name, told(load(f), seed=random.getrandbits(32), gpu=a.gpus))\n"
        "if __name__ == '__main__':\n"
        "    generate_mel(official('--ldm/-m --config/-c --gpus/-g --cavp_feature/-f --out-dir/-o --timesteps/-t"
        " --solver/-s --scale --sample-num'))\n",
        "script/mel2wav_vocoder.py": "class VocoderBigVGAN:\n    def __init__(self, path): loaded('bigvgan')\n"
        "if __name__ == '__main__':\n"
        "    args = official('--root --vocoder-path')\n"
        "    vocoder = VocoderBigVGAN(args.vocoder_path)\n"
        "    for f in sorted(Path(args.root).glob('*.npy')):\n"
        "        sound(Path(args.root + 'gen_wav_16k_80') / (f.stem + '.wav'), told(load(f)))\n",
        "Frieren/cfm/__init__.py": "",
    },
    "vatt": {
        "vatt/vt2a/vt2a_mlm_ff_generation.py": "from vt2a.util import instantiate_from_config\n"
        "from transformers import LlamaTokenizer\n"
        "def load_model_from_config(config, ckpt): return loaded('vatt')\n"
        "if __name__ == '__main__':\n"
        "    args = official('--save_path/-s --img_embs_dir --meta_dir --config_file --ckpt_path')\n"
        "    model = load_model_from_config(args.config_file, args.ckpt_path)\n"
        '    tokenizer = LlamaTokenizer.from_pretrained("/path/to/pretrained_mdls/vicuna/")\n'
        "    VGG_PROMPT_PATH = '/path/to/vggsound_v2a_instruction.json'\n"
        "    text_prompts = {item['video_path']: item['output'] for item in load(VGG_PROMPT_PATH)}\n"
        "    cnt = 0\n"
        "    for line in open(Path(args.meta_dir) / 'vggsound_test.txt').readlines():\n"
        "        if cnt >= 15546 // 2:\n            continue\n"
        "        cnt += 1\n"
        "        fn = line.strip()\n"
        "        feature = (Path(args.img_embs_dir) / (fn + '.npy')).read_text()\n"
        "        save(args.save_path, fn + '.npy', told({}, seed=random.getrandbits(32), video=feature,"
        " caption=text_prompts[fn]))\n",
        "vatt/vt2a/encodec2audio.py": "from audiocraft.models import AudioGen\n"
        "if __name__ == '__main__':\n"
        "    args = official('--save_path/-s --encodec_dir')\n"
        "    AudioGen.get_pretrained("
        "'/path/to/models--facebook--audiogen-medium/snapshots/1277dd7dfd8fa57a205a70acc5de0ee90804502f/')\n"
        "    for line in open('/path/to/vggsound_test.txt'):\n"
        "        sound(Path(args.save_path) / (line.strip() + '.wav'), told(load(Path(args.encodec_dir) / (line.strip() + '.npy'))))\n",
        "vatt/vt2a/__init__.py": "",
        "vatt/vt2a/util.py": "def instantiate_from_config(config): return config\n",
        "vatt/transformers.py": TRANSFORMERS,
        "vatt/vt2a/audiocraft/models.py": "class AudioGen(Loads): pass\n",
    },
    "thinksound": {
        "extract_latents.py": "import transformers\n"
        "if __name__ == '__main__':\n"
        "    a = official('--root --tsv_path --save-dir --sample_rate --duration_sec --synchformer_ckpt --start-row"
        " --end-row --use_half!')\n"
        "    transformers.AutoModel.from_pretrained('facebook/metaclip'), transformers.T5EncoderModel.from_pretrained('t5')\n"
        "    for row in csv.DictReader(open(a.tsv_path, encoding='utf8', newline='')):\n"
        "        v = Path(a.root) / (row['id'] + '.mp4')\n"
        "        story = told({}, video=digest(v), caption=row['caption'], cot=row['caption_cot'])\n"
        "        save(a.save_dir, row['id'] + '.npz', story)\n",
        "predict.py": PREDICT.format(package="ThinkSound"),
        "ThinkSound/models/utils.py": UTILS,
        "transformers.py": TRANSFORMERS,
    },
    "prismaudio": {
        "data_utils/prismaudio_data_process.py": "a = official('--root --tsv_path --save-dir --sample_rate --vae_ckpt"
        " --vae_config --synchformer_ckpt --start-row/-s --end-row/-e --add_audio_path --add_video_path --inference_mode')\n"
        "assert os.environ['RANK'] == '0' and a.inference_mode == 'True'\n"
        "for row in csv.DictReader(open(a.tsv_path, encoding='utf8', newline='')):\n"
        "    story = told({}, video=digest(Path(a.root) / (row['id'] + '.mp4')), cot=row['caption_cot'])\n"
        "    save(a.save_dir, row['id'] + '.npz', story)\n",
        "predict.py": PREDICT.format(package="PrismAudio"),
        "PrismAudio/models/utils.py": UTILS,
        "torch/__init__.py": "",
        "torch/distributed/__init__.py": "",
        "torch/distributed/run.py": "import runpy\nassert [sys.argv.pop(1) for _ in '12'] == ['--standalone', '--nproc_per_node=1']\n"
        "os.environ['RANK'] = '0'\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n",
    },
    "hunyuanvideo-foley": {
        "infer.py": "def load_model(path, config, device, **more): return loaded('hunyuan')\n"
        "def set_manual_seed(global_seed): random.seed(global_seed)\n"
        "def main():\n"
        "    set_manual_seed(1)\n"
        "    a = official('--model_path --config_path --model_size --csv_path --single_video --single_prompt --neg_prompt"
        " --output_dir --guidance_scale --num_inference_steps --audio_length --device --gpu_id --batch_size"
        " --skip_existing! --save_video! --log_level --enable_offload!')\n"
        "    assert Path(a.model_path).exists() and a.model_size == 'xxl'\n"
        "    load_model(a.model_path, a.config_path, 'cuda')\n"
        "    for i, row in enumerate(csv.DictReader(open(a.csv_path, encoding='utf8', newline=''))):\n"
        "        story = told({}, seed=random.getrandbits(32), video=digest(row['video']), caption=row['prompt'])\n"
        "        sound(Path(a.output_dir) / ('%04d.wav' % i), story, rate=48000)\n"
        "if __name__ == '__main__':\n    main()\n",
    },
    "controlfoley": {
        "demo.py": "import soundfile\n"
        "def create_audio_generation_model(name): return loaded('controlfoley')\n"
        "class FeaturesUtils:\n    def __init__(self, **more): loaded('features')\n"
        "def main():\n"
        "    a = official('--variant --video --audio --prompt --negative_prompt --duration --cfg_strength --num_steps"
        " --output --seed --skip_video_composite! --mask_away_clip!')\n"
        "    create_audio_generation_model('x'), FeaturesUtils(mode='44k')\n"
        "    v = Path(a.video)\n"
        "    story = told({}, seed=a.seed, video=digest(v), caption=a.prompt, seconds=a.duration)\n"
        "    sound(Path(a.output) / 't.wav', story, rate=44100)\n"
        "    data, rate = soundfile.read(str(Path(a.output) / 't.wav'), dtype='int16')\n"
        "    soundfile.write(str(Path(a.output) / (v.stem + '.flac')), data, rate)\n"
        "if __name__ == '__main__':\n    main()\n",
    },
    "genau-large": {
        "GenAU/scripts/inference_file.py": "def seed_everything(seed): random.seed(int(seed))\n"
        "def instantiate_from_config(config): return loaded('genau')\n"
        "def infer(configs, seed):\n"
        "    seed_everything(seed)\n"
        "    log_path = configs['logging'][\"log_directory\"]\n"
        "    instantiate_from_config(configs)\n"
        "    for line in open(a.list_inference, encoding='utf8', newline='').read().split('\\n')[:1]:\n"
        "        wav, caption = line.split('|')\n"
        "        story = told({}, seed=random.getrandbits(32), caption=caption, video=None)\n"
        "        sound(Path(log_path) / 'genau' / 'infer' / wav, story)\n"
        "if __name__ == '__main__':\n"
        "    a = official('--config_yaml/-c --model/-m --seed/-s --cfg_weight/-cfg --n_cand --ddim_steps --list_inference/-l"
        " --reload_from_ckpt/-ckpt --strategy')\n"
        "    infer({'logging': {'log_directory': 'run_logs'}}, a.seed)\n",
    },
    "make-an-audio": {"gen_wav.py": GEN_WAV.format(more="", keep="")},
    "make-an-audio-2": {
        "scripts/gen_wav.py": "from preprocess.n2s_by_openai import get_struct\n"
        + GEN_WAV.format(more="--struct_prompt ", keep=", struct=a.struct_prompt"),
        "preprocess/n2s_by_openai.py": "def get_struct(text): raise RuntimeError('no language model is ever asked')\n",
    },
}


def stages(name: str) -> list[str]:
    """File names of the scripts of a stand-in, in the order they run."""
    from model_zoo.baselines import load_manifest

    steps = load_manifest(name).driver.steps
    assert steps is not None
    return [next(Path(part).name for part in step.run if part.endswith(".py")) for step in steps.commands]


def write_repository(folder: Path, name: str) -> Path:
    """The stand-in of one model below ``folder``."""
    for script, body in SCRIPTS[name].items():
        path = folder / script
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + body)
    (folder / "library.py").write_text(LIBRARY)
    return folder


def story(path: Path) -> dict[str, Any]:
    """What a wav or flac file of a stand-in tells."""
    data, _ = soundfile.read(path, dtype="int16", always_2d=True)
    return dict(json.loads(bytes(data[:, 0].astype("uint8")).decode("ascii")))
