"""Baselines that run in this process: what their class must offer beyond a generator."""

from __future__ import annotations

from abc import abstractmethod

from av_bench.contracts import Generator
from model_zoo.baselines.schema import Manifest
from model_zoo.baselines.site import Site


class InProcessBaseline(Generator):
    """A generator that a manifest names as its ``driver.target``."""

    @abstractmethod
    def __init__(self, manifest: Manifest, site: Site, **options: object) -> None: ...

    @staticmethod
    @abstractmethod
    def obstacles(site: Site) -> list[str]:
        """Why it cannot run here, empty when it can."""
