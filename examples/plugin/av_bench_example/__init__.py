"""Example plugin of av-bench: what each entry point of ``pyproject.toml`` names."""

from pathlib import Path

SET = Path(__file__).with_name("example_clips.yaml")
PROTOCOL = Path(__file__).with_name("example_2s.yaml")
