"""Other people's generators: what each one is (``*.yaml``), and how it is run or imported."""

from model_zoo.baselines.load import baseline, is_baseline, load_manifest, manifest_names

__all__ = ["baseline", "is_baseline", "load_manifest", "manifest_names"]
