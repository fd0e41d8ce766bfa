"""Networks under derived weights against the original packages. The originals ran when the pack was made; here they
only say which weights there are."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from av_bench import extractors
from av_bench.contracts import VideoRequest
from av_bench.media.decode import decode
from tests.golden import pack
from tests.golden.weights import checksum, draws, weights_of

pytestmark = [pytest.mark.golden, pytest.mark.paper]


def needs(*names: str) -> None:
    """Skip without the packages (``--no-skips-of golden`` makes a failure of it)."""
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}; pip install 'av-bench[paper]'")


def weights(name: str, original: nn.Module) -> dict[str, Tensor]:
    """Derived weights in the original's layout; those that the golden was made with, or the test says so."""
    from tests.golden import originals

    state = weights_of(original.state_dict(), originals.PARTS.get(name, ""))
    assert checksum(state) == pack.note(name)["weights"], "other weights than those of the golden: see weights.py"
    return state


def check(name: str, ours: Mapping[str, np.ndarray[Any, Any]], output: str, limit: float = 1e-4) -> None:
    """Rows of both sounds within ``limit`` of the rms, and far from one another."""
    stored = pack.load(name)
    for sound in pack.SOUNDS:
        assert pack.relative(ours[f"{sound} {output}"], stored[f"{sound} {output}"]) < limit, sound
    a, b = (np.atleast_2d(stored[f"{sound} {output}"])[0] for sound in pack.SOUNDS)
    assert pack.relative(a, b) > 1e-2  # another clip is much further away than the limit


def rows(extractor: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Our features of both sounds, file to feature."""
    found = {}
    for sound, path in pack.SOUNDS.items():
        for output, value in extractor.features([path], pack.SECONDS).items():
            found[f"{sound} {output}"] = value[0]
    return found


@pytest.mark.parametrize(
    ("name", "packages", "outputs"),
    [
        ("vggish", ("torchvggish",), ("embedding",)),
        ("panns", ("panns_inference", "torchlibrosa"), ("embedding", "logits")),
        ("passt", ("hear21passt", "timm"), ("embedding", "logits")),
    ],
)
def test_taggers(name: str, packages: tuple[str, ...], outputs: tuple[str, ...]) -> None:
    needs(*packages)
    from tests.golden import originals

    build: dict[str, Callable[[], nn.Module]] = {
        "vggish": originals.vggish,
        "panns": originals.panns,
        "passt": originals.passt,
    }
    ours = rows(extractors.load(name, weights(name, build[name]())))
    for output in outputs:
        check(name, ours, output)


@pytest.mark.parametrize("side", ["audio", "video"])
def test_imagebind(side: str) -> None:
    needs("imagebind", "timm", "einops", "iopath")
    from tests.golden import originals

    name = f"imagebind-{side}"
    extractor = extractors.load(name, weights(name, originals.imagebind()))
    if side == "audio":
        check(name, rows(extractor), "embedding")
        return
    ready = extractor.prepare(decode(pack.VIDEO, [extractor.video_request], 4.0, audio=False), 4.0)
    one_view = ready[:1]  # of a square picture the three crops are one
    assert torch.equal(ready[0], ready[2])
    assert pack.relative(extractor.run([one_view])[0]["embedding"], pack.load(name)["embedding"]) < 1e-3


def test_clap_audio() -> None:
    needs("laion_clap", "transformers", "torchlibrosa")
    from tests.golden import originals

    state = weights("clap-audio", originals.laion_clap()[0])
    check("clap-audio", rows(extractors.load("clap-audio", state)), "embedding")


def test_clap_text_and_its_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("laion_clap", "transformers", "torchlibrosa")
    from tests.golden import originals

    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path))
    originals.vocabulary(tmp_path / "weights/roberta-base", "roberta-base")
    state = weights("clap-text", originals.laion_clap()[0])
    extractor, stored = extractors.load("clap-text", state), pack.load("clap-text")
    ids = [extractor.prepare(caption, pack.SECONDS)[0].tolist() for caption in originals.CAPTIONS]
    assert ids == stored["ids"].tolist()
    ours = extractor.features(list(originals.CAPTIONS), pack.SECONDS)["embedding"]
    assert pack.relative(ours, stored["embedding"]) < 1e-4
    assert pack.relative(ours[::-1], stored["embedding"]) > 1e-2


def test_msclap_audio() -> None:
    needs("msclap", "transformers", "torchlibrosa")
    from tests.golden import originals

    state = weights("msclap-audio", originals.msclap())
    check("msclap-audio", rows(extractors.load("msclap-audio", state)), "embedding")


def test_msclap_text_and_its_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("msclap", "transformers", "torchlibrosa")
    from tests.golden import originals

    monkeypatch.setenv("AV_BENCH_HOME", str(tmp_path))
    originals.vocabulary(tmp_path / "weights/gpt2", "gpt2")
    state, stored = weights("msclap-text", originals.msclap()), pack.load("msclap-text")
    paper, strict = (extractors.load("msclap-text", state, flavour=f) for f in ("paper", "strict"))
    ours, right = (x.features(list(originals.CAPTIONS), pack.SECONDS)["embedding"] for x in (paper, strict))
    assert pack.relative(ours, stored["embedding"]) < 1e-4
    assert pack.relative(right[0], stored["embedding"][0]) < 1e-4
    assert pack.relative(right[1], stored["embedding"][1]) > 1e-3  # it has a "!": the original reads it too early


def test_open_clip() -> None:
    needs("open_clip", "torchvision")
    from model_zoo.mmaudio.conditions.clip_encoder import CLIPEncoder
    from tests.golden import originals

    network = CLIPEncoder(weights("open-clip", originals.open_clip()), originals.SMALL_CLIP).eval()
    stored, request = pack.load("open-clip"), VideoRequest(8.0, 384, "squash")
    frames = decode(pack.VIDEO, [request], 2.0, audio=False).frames(request)[[0, 11]]
    ids = network.tokenizer(list(originals.CAPTIONS))
    with torch.no_grad():
        images, tokens = network.images(frames), network.text(list(originals.CAPTIONS))
        pooled = tokens[torch.arange(2), ids.argmax(dim=1)] @ network.model.text_projection
    assert pack.relative(images, stored["images"]) < 1e-3
    assert np.array_equal(ids, stored["ids"])
    assert pack.relative(nn.functional.normalize(pooled, dim=-1), stored["pooled texts"]) < 1e-4


@pytest.mark.parametrize("rate", ["16k", "44k"])
def test_bigvgan(rate: str) -> None:
    needs("bigvgan")
    from model_zoo.mmaudio.codec.vocoder import BigVGAN, VocoderConfig
    from tests.golden import originals

    state = weights_of(originals.bigvgan(rate).state_dict())
    assert checksum(state) == pack.note("bigvgan")["weights"][rate]
    said = originals.SMALL_VOCODERS[rate]
    ours = BigVGAN(
        VocoderConfig(
            said["num_mels"], tuple(originals.RATES), originals.CHANNELS, said["use_tanh_at_final"],
            said["use_bias_at_final"],
        )
    ).eval()  # fmt: skip
    ours.load_state_dict(state)
    mel = torch.from_numpy(draws("mel", said["num_mels"] * 40).reshape(1, -1, 40)) - 2
    with torch.no_grad():
        assert pack.relative(ours(mel)[0], pack.load("bigvgan")[rate]) < 1e-4
