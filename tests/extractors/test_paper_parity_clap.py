"""LAION-CLAP and MS-CLAP side by side with ours, tokenizers included. Slow: ``-m parity``. See test_paper_parity.py."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from av_bench import extractors
from av_bench.networks.packages import model_file, quiet
from tests.extractors import golden_pipeline as gold
from tests.golden.originals import vocabulary

pytestmark = [
    pytest.mark.paper,
    pytest.mark.parity,
    gold.needs_golden,
    gold.needs_package("laion_clap", "msclap", "torchaudio", "torchvision", "transformers", "soundfile"),
]
CAPTIONS = ["playing tennis", "a bongo!", "sheep bleating in the wind, far away, then near " * 6]


@pytest.fixture
def vocabularies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tokenizer files in our weights folder and, for the originals, in the working directory under their hub names."""
    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path / "home"))
    for kind in ("roberta-base", "gpt2"):
        vocabulary(tmp_path / "home/weights" / kind, kind)
        vocabulary(tmp_path / "work" / kind, kind)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_laion_clap(sounds: list[Path], vocabularies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    state = gold.rebuild("clap")
    path = vocabularies / "clap.pt"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    package = model_file("laion_clap.clap_module.model")
    config = RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
    monkeypatch.setattr(package.RobertaModel, "from_pretrained", lambda _name: RobertaModel(config))
    folder = Path(package.__file__).parent / "model_configs"
    settings = json.loads((folder / "HTSAT-base.json").read_text())
    settings["text_cfg"]["model_type"] = "roberta"
    with quiet():
        original = package.CLAP(**settings, enable_fusion=False, fusion_type="None").eval()
    with quiet(), monkeypatch.context() as patch:
        patch.syspath_prepend(str(folder.parents[1]))  # the package imports its parts as top-level modules, too
        for other in ("BertTokenizer", "RobertaTokenizer", "BartTokenizer"):  # read at import, of no use here
            patch.setattr(getattr(transformers, other), "from_pretrained", lambda _name: None)
        features_of = model_file("laion_clap.training.data").get_audio_features
    original.load_state_dict(state)
    items = [
        features_of({}, gold.published_load(p, 48_000), 480_000, "rand_trunc", "repeatpad", settings["audio_cfg"])
        for p in sounds
    ]
    tokenizer = RobertaTokenizer.from_pretrained("roberta-base")
    ids = tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    with torch.inference_mode():
        audio, text = original.get_audio_embedding(items), original.get_text_embedding(dict(ids))
    ours = extractors.load("clap-audio", path).features(sounds, gold.SECONDS)["embedding"]
    gold.note("LAION-CLAP audio", "laion-clap", ours, audio, 1e-4)
    ours = extractors.load("clap-text", path).features(CAPTIONS, gold.SECONDS)["embedding"]
    gold.note("LAION-CLAP text", "laion-clap", ours, text, 1e-4)


def msclap_weights(network: torch.nn.Module) -> dict[str, Tensor]:
    """Lively derived weights: batch norms centred on log-mels in dB as a trained network's are."""
    recipe, state = gold.recipe(), {}
    for key, value in network.state_dict().items():
        known = key.replace("audio_encoder.base.htsat.", "audio_branch.")
        rule = recipe.rule_for("clap", known, list(value.shape), str(value.dtype).removeprefix("torch."))
        made = recipe.tensor(key, list(value.shape), rule)
        state[key] = value.clone() if made is None else torch.from_numpy(made)
    return state


@pytest.fixture
def msclap(vocabularies: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Path]:
    """The original wrapper and the file both load, with causal masks in it as older transformers wrote them."""
    from transformers import GPT2Config, GPT2Model

    package = model_file("msclap.models.clap")
    wrapper = model_file("msclap.CLAPWrapper")
    monkeypatch.setattr(package.AutoModel, "from_pretrained", lambda _name: GPT2Model(GPT2Config()))
    with quiet():
        blank = package.CLAP("HTSAT", 44_100, 1024, 320, 64, 50, 8000, 527, 768, "gpt2", 768, 1024)
    state = msclap_weights(blank)
    state["caption_encoder.base.h.0.attn.bias"] = torch.ones(1, 1, 8, 8)
    path = vocabularies / "CLAP_weights_2023.pth"
    torch.save({"model": state}, path)
    with quiet():
        original = wrapper.CLAPWrapper(path, version="2023", use_cuda=False)

    def read_audio(path: Path, resample: bool = True) -> tuple[Tensor, int]:
        import torchaudio

        audio, rate = gold.raw(path)  # instead of torchaudio.load, which needs a codec package
        return (torchaudio.transforms.Resample(rate, 44_100)(audio) if resample else audio), 44_100

    original.read_audio = read_audio
    return original, path


def test_msclap(sounds: list[Path], msclap: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    original, path = msclap
    monkeypatch.setattr(random, "randrange", lambda *_: 0)  # the dice show the first window
    reference = original.get_audio_embeddings(sounds)
    ours = extractors.load("msclap-audio", path).features(sounds, gold.SECONDS)["embedding"]
    gold.note("MS-CLAP audio, first window", "msclap", ours, reference, 1e-4)
    assert gold.relative(np.roll(ours, 1, axis=0), reference) > 1e-2


def test_msclap_window_matters_less_than_the_clip(sounds: list[Path], msclap: tuple[Any, Path]) -> None:
    """What the fixed window replaces: the spread of the published random draws, as cosines to the first window."""
    original, path = msclap
    random.seed(0)
    ours = torch.from_numpy(extractors.load("msclap-audio", path).features(sounds[1:3], gold.SECONDS)["embedding"])
    draws = [original.get_audio_embeddings(sounds[1:3]) for _ in range(4)]
    cosines = torch.stack([torch.cosine_similarity(ours, draw) for draw in draws])
    gold.MEASURED.append(
        ("MS-CLAP random windows, 1 - cosine to the first", "msclap", float(1 - cosines.min()), "absolute")
    )
    assert cosines.max() < 1  # the dice do change the feature


@pytest.mark.parametrize("which", [0, 1, 2])
def test_msclap_text(msclap: tuple[Any, Path], which: int) -> None:
    original, path = msclap
    with quiet():
        reference = original.get_text_embeddings([CAPTIONS[which]])
    ours = extractors.load("msclap-text", path).features([CAPTIONS[which]], gold.SECONDS)["embedding"]
    gold.note(f"MS-CLAP text {which}", "msclap", ours, reference, 1e-4)
    if "!" in CAPTIONS[which]:
        strict = extractors.load("msclap-text", path, flavour="strict").features([CAPTIONS[which]], gold.SECONDS)[
            "embedding"
        ]
        assert gold.relative(strict, reference) > 1e-3  # the published reading stops one token early
