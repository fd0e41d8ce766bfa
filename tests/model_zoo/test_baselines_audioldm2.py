"""AudioLDM 2 end to end: a tiny pipeline of the same classes with random weights, saved, loaded and run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

import av_bench
from av_bench.contracts import MissingRequirement, UsageError
from model_zoo import load

pytestmark = pytest.mark.paper


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline of about 0.1 M parameters."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra audioldm2)")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("audioldm2")
    torch.manual_seed(0)
    unet = diffusers.AudioLDM2UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=32,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=(8, 16),
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=[8, 16],
        in_channels=1,
        out_channels=1,
        norm_num_groups=8,
        down_block_types=["DownEncoderBlock2D", "DownEncoderBlock2D"],
        up_block_types=["UpDecoderBlock2D", "UpDecoderBlock2D"],
        latent_channels=4,
    )
    towers = {"vocab_size": 300, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    text = {**towers, "num_attention_heads": 2, "projection_dim": 16, "pad_token_id": 1}
    audio = {
        **{"spec_size": 8, "window_size": 4, "num_mel_bins": 8, "patch_size": 2, "patch_stride": 2},
        **{"patch_embeds_hidden_size": 8, "depths": [2], "num_attention_heads": [2], "hidden_size": 8},
        **{"projection_dim": 16, "num_hidden_layers": 1, "enable_fusion": False},
    }
    clap = transformers.ClapModel(transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=16))
    t5 = transformers.T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=2)
    gpt2 = transformers.GPT2Config(
        n_embd=16, n_head=2, n_layer=1, n_ctx=99, n_positions=99, vocab_size=300, max_new_tokens=8
    )
    language = transformers.GPT2LMHeadModel(gpt2)
    language.config.max_new_tokens = 8
    hifigan = transformers.SpeechT5HifiGanConfig(
        model_in_dim=8,
        sampling_rate=16_000,
        upsample_initial_channel=16,
        upsample_rates=[8, 5, 4],
        upsample_kernel_sizes=[16, 11, 8],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1]],
        normalize_before=False,
    )
    pipe = diffusers.AudioLDM2Pipeline(
        vae=vae,
        text_encoder=clap,
        text_encoder_2=transformers.T5EncoderModel(t5),
        projection_model=diffusers.AudioLDM2ProjectionModel(
            text_encoder_dim=16, text_encoder_1_dim=32, langauge_model_dim=16
        ),
        language_model=language,
        tokenizer=_roberta(folder, transformers),
        tokenizer_2=_words(transformers),
        feature_extractor=transformers.ClapFeatureExtractor(feature_size=8, hop_length=160, sampling_rate=16_000),
        unet=unet,
        scheduler=diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False),
        vocoder=transformers.SpeechT5HifiGan(hifigan),
    )
    pipe.save_pretrained(folder / "pipe")
    return folder / "pipe"


def _roberta(folder: Path, transformers: Any) -> Any:
    """A byte-level tokenizer whose vocabulary is the bytes themselves."""
    from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


def _words(transformers: Any) -> Any:
    """A T5 tokenizer of a few pieces."""
    import tokenizers

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0)]
    pieces += [(chr(c), -5.0) for c in range(97, 123)] + [("\u2581", -4.0)]
    core = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    return transformers.T5TokenizerFast(tokenizer_object=core, model_max_length=77, extra_ids=0)


@pytest.fixture
def ready(weights: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AV_BENCH_AUDIOLDM2_L_WEIGHTS", str(weights))
    return "audioldm2-l:steps=2,guidance=2"


def test_a_run_from_text_to_scores(ready: str, tmp_path: Path) -> None:
    result = av_bench.run(
        set="impacts", model=ready, limit=3, out=tmp_path / "run", metrics=("KL-nano",), quiet=True, samples_per_clip=2
    )
    assert result.exit_code == 0
    assert result.scores["counts"]["scored"] == 3
    files = sorted((result.path / "audio").iterdir())
    assert len(files) == 6
    first, rate = soundfile.read(files[0])
    assert (rate, len(first)) == (16_000, 8 * 16_000)
    assert first.any()
    assert (first != soundfile.read(files[1])[0]).any()  # another k, another sample
    said = json.loads((result.path / "run.json").read_text())["generator"]
    counted = sum(p.numel() for p in _unet(ready).parameters())
    assert said["parameters"] == {"count": counted, "source": "measured"}
    assert said["seconds_per_sample"]["n"] == 6 - 2
    assert said["paper"] == [{"table": "table3", "row": "AudioLDM 2-L"}]


def _unet(ready: str) -> Any:
    """The saved network, read on its own."""
    import diffusers

    return diffusers.AudioLDM2UNet2DConditionModel.from_pretrained(load(ready).folder, subfolder="unet")


def test_neither_order_nor_company_changes_a_sample(ready: str) -> None:
    from av_bench.contracts import Clip, ClipSet

    clips = ClipSet("toy", "1", tuple(Clip(name, text=f"a {name} falls") for name in ("cup", "jar", "pan")))
    model = load(ready)
    model.setup(clips, 1.0, 7)
    forth = {g.clip_id: g.audio for g in model.generate(clips.clips, 7)}
    back = {g.clip_id: g.audio for g in model.generate(clips.clips[::-1], 7)}
    assert all(torch.equal(forth[name], back[name]) for name in forth)
    assert not torch.equal(forth["cup"], forth["jar"])


def test_what_is_missing_is_said(ready: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from av_bench.contracts import Clip, ClipSet

    with pytest.raises(UsageError, match="needs text"):
        load(ready).setup(ClipSet("toy", "1", (Clip("a"),)), 1.0, 0)
    monkeypatch.setenv("AV_BENCH_AUDIOLDM2_L_WEIGHTS", str(tmp_path))
    with pytest.raises(UsageError, match="not a folder of AudioLDM 2"):
        load(ready).setup(ClipSet("toy", "1", (Clip("a", text="b"),)), 1.0, 0)
    monkeypatch.delenv("AV_BENCH_AUDIOLDM2_L_WEIGHTS")
    with pytest.raises(MissingRequirement, match="weights is not set"):
        load(ready)
