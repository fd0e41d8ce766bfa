"""What an installation has, what it lacks, and the command that fixes it."""

from __future__ import annotations

from importlib import import_module, metadata, util

from av_bench.contracts import Extractor, PairExtractor
from av_bench.results.findings import Finding

_CORE = ("torch", "numpy", "scipy", "pandas", "pyarrow", "av", "librosa", "sklearn", "soundfile", "safetensors", "yaml")
_PAPER = (
    "torchvision",
    "torchaudio",
    "hear21passt",
    "panns_inference",
    "torchvggish",
    "imagebind",
    "laion_clap",
    "msclap",
)


def examine() -> list[Finding]:
    """Core packages, the extra ``paper``, device, folders, weights."""
    findings = [_core(name) for name in _CORE]
    findings += [_paper(name) for name in _PAPER]
    findings += [_device(), _home(), *_weights()]
    return findings


def _core(name: str) -> Finding:
    try:
        module = import_module(name)
    except Exception as error:  # an import may fail in any way; the report must continue
        return Finding(name, "broken", f"{type(error).__name__}: {error}; install again with the README's command")
    return Finding(name, "ok", str(getattr(module, "__version__", "")))


def _paper(name: str) -> Finding:
    if util.find_spec(name) is None:
        return Finding(
            name, "missing", 'only for the paper\'s networks: pip install -c constraints/paper.txt "av-bench[paper]"'
        )
    if name in ("torchvision", "torchaudio"):
        return _core(name)
    distribution = {
        "panns_inference": "panns-inference",
        "imagebind": "imagebind-unofficial",
        "laion_clap": "laion-clap",
    }
    try:
        return Finding(name, "ok", metadata.version(distribution.get(name, name)))
    except metadata.PackageNotFoundError:
        return Finding(name, "ok", "version unknown")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding(
            "device", "ok", ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        )
    return Finding("device", "ok", f"cpu, {torch.get_num_threads()} threads; no CUDA device")


def _home() -> Finding:
    from av_bench.runtime.files import home, write_atomically

    try:
        probe = home() / ".doctor"
        write_atomically(probe, b"ok")
        probe.unlink()
    except OSError as error:
        return Finding("cache folder", "broken", f"{home()}: {error}; set AV_BENCH_HOME to a folder you can write")
    return Finding("cache folder", "ok", str(home()))


def _weights() -> list[Finding]:
    from av_bench import registry
    from av_bench.contracts import AvBenchError

    findings = []
    for name in registry.names("extractors"):
        try:
            detail = weights_of(registry.load("extractors", name))
        except (ImportError, AvBenchError) as error:
            findings.append(Finding(f"extractor {name}", "missing", str(error)))
        else:
            findings.append(Finding(f"extractor {name}", "ok", detail))
    return findings


def weights_of(cls: type[Extractor] | type[PairExtractor]) -> str:
    """Whether an extractor's weights are there; gigabytes that were never hashed are not hashed for this."""
    from av_bench import weights
    from av_bench.extractors.base import BaseExtractor, BasePairExtractor
    from av_bench.weights.lock import get

    name = cls.weights_name if issubclass(cls, BaseExtractor | BasePairExtractor) else ""
    path = weights.find(name) if name else None
    if path is not None and weights.remembered(path) is None:
        weights.check_at_sight(get(name), path)
        return f"weights present, hashed at first use or by `av-bench weights verify {name}`"
    return "no weights needed" if cls.weights_hash_of(None) == "none" else "weights present"
