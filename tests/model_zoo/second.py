"""A second Python environment with an older numpy, and manifests of the fake generators that run in it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

NUMPY = "1.24.4"
DRIVER = Path(__file__).with_name("fake_driver.py")


def second_python() -> Path:
    """Interpreter of an environment made once per machine; the test is skipped when no package index answers."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if sys.version_info[:2] != (3, 11):
        pytest.skip(f"numpy {NUMPY} has no wheel for Python {version}")
    root = Path(tempfile.gettempdir()) / f"av-bench-second-env-py{version}-numpy{NUMPY}"
    root.mkdir(exist_ok=True)
    python = root / "env/bin/python"
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "ready").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(root / "env")], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--retries=1", f"numpy=={NUMPY}"]
            done = subprocess.run(install, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no second environment: {done.stderr.strip().splitlines()[-1:]}")
            (root / "ready").touch()
    return python


def interpreter(version: str) -> Path:
    """Another Python of this machine; the test is skipped where there is none."""
    found = [*Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    found += [Path(folder) / f"python{version}" for folder in os.environ.get("PATH", "").split(os.pathsep)]
    for path in found:
        if path.is_file() and not subprocess.run([path, "--version"], capture_output=True, check=False).returncode:
            return path
    pytest.skip(f"no Python {version} on this machine")


def write_manifest(folder: Path, kind: str, *more: str, **changes: Any) -> Path:
    """A manifest of a fake; ``changes`` replace keys, those of ``driver`` are merged."""
    data: dict[str, Any] = {
        "name": f"fake-{kind}",
        "title": f"Fake {kind}",
        "task": "v2a",
        "modes": ["subprocess"],
        "conditions": {"video": "required", "text": "unused"},
        "native": {"rate": 16_000, "max_s": 10.0},
        "licence": {"code": "MIT"},
        "citation": "none",
        "driver": {
            "status": "real-weights",
            "command": ["{python}", str(DRIVER), kind, "{request}", *more],
            "load_s": 20.0,
            "item_s": 20.0,
        },
    }
    data["driver"] |= changes.pop("driver", {})
    path = folder / f"fake-{kind}.yaml"
    path.write_text(yaml.safe_dump(data | changes, sort_keys=False))
    return path
