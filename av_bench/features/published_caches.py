"""The feature files of av-benchmark: which output of which extractor is in which file, under which key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from av_bench.contracts import Side


@dataclass(frozen=True)
class CacheFile:
    """One file, ``clip name -> features``. ``keys``: output -> key inside a clip's entry, "" for the entry itself."""

    name: str
    extractor: str
    side: Side
    keys: Mapping[str, str]


PANNS = CacheFile("pann_features.pth", "panns", "reference", {"embedding": "2048", "logits": "logits"})
VGGISH = CacheFile("vggish_features.pth", "vggish", "reference", {"embedding": ""})
PASST = CacheFile("passt_features_embed.pth", "passt", "reference", {"embedding": ""})
PASST_LOGITS = CacheFile("passt_logits.pth", "passt", "reference", {"logits": ""})
IMAGEBIND_AUDIO = CacheFile("imagebind_audio.pth", "imagebind-audio", "reference", {"embedding": ""})
IMAGEBIND_VIDEO = CacheFile("imagebind_video.pth", "imagebind-video", "video", {"embedding": ""})
SYNCHFORMER_AUDIO = CacheFile("synchformer_audio.pth", "synchformer-audio", "reference", {"tokens": ""})
SYNCHFORMER_VIDEO = CacheFile("synchformer_video.pth", "synchformer-video", "video", {"tokens": ""})
CLAP_AUDIO = CacheFile("clap_laion_audio.pth", "clap-audio", "reference", {"embedding": ""})
CLAP_TEXT = CacheFile("clap_laion_text.pth", "clap-text", "text", {"embedding": ""})
MSCLAP_AUDIO = CacheFile("clap_ms_audio.pth", "msclap-audio", "reference", {"embedding": ""})
MSCLAP_TEXT = CacheFile("clap_ms_text.pth", "msclap-text", "text", {"embedding": ""})

CACHE_FILES = (
    *(PANNS, VGGISH, PASST, PASST_LOGITS),
    *(IMAGEBIND_AUDIO, IMAGEBIND_VIDEO, SYNCHFORMER_AUDIO, SYNCHFORMER_VIDEO),
    *(CLAP_AUDIO, CLAP_TEXT, MSCLAP_AUDIO, MSCLAP_TEXT),
)
