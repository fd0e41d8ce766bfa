"""From a manifest and the paths of this machine to a command: in an interpreter of its own, or in a container."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from av_bench.contracts import UsageError
from av_bench.runtime.files import home
from model_zoo.external.process import Launch

if TYPE_CHECKING:
    from model_zoo.baselines.schema import Manifest
    from model_zoo.baselines.site import Site

_DRIVERS = Path(__file__).resolve().parents[1] / "baselines/drivers"


def launch(manifest: Manifest, site: Site, folder: Path, device: str = "cpu") -> Launch:
    """The command of a manifest. Placeholders: python, python2, repo, weights, drivers, request, job.

    Official code often says "cuda", or takes every device it sees, so only the one that it was given is shown to it.
    """
    if ":" in str(folder):  # separates the folders of PYTHONPATH, and the parts of a mount
        raise UsageError(f"{folder}: models in another environment need a path without a colon; choose another --out")
    values = {"request": str(folder / "request.json"), "job": str(folder), "drivers": str(_DRIVERS)}
    values |= {"repo": site.repo or "", "weights": site.weights or "", "python": site.python or "python"}
    values["python2"] = site.python2 or ""
    try:
        argv = tuple(part.format_map(values) for part in manifest.driver.command)
    except (KeyError, ValueError) as error:
        known = ", ".join(values)
        raise UsageError(f"baseline {manifest.name}: driver.command: placeholder {error}; known are {known}") from error
    where = Path(site.repo) if site.repo else None
    if not site.in_container(manifest):
        return Launch(argv, where, one_device(device))
    gpu = manifest.min_vram_gib is not None or device.startswith("cuda")
    return _container(site, site.image or manifest.driver.image or "", argv, where or folder, folder, gpu, device)


def one_device(device: str) -> dict[str, str]:
    """The variable that shows a child ``cuda:N`` alone (``cuda``: the first one), empty for other devices.

    N counts what this process sees, in the order in which it sees it.
    """
    number = re.fullmatch(r"cuda(?::(\d+))?", device)
    if number is None:
        return {}
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    index = int(number[1] or 0)
    found = {"CUDA_VISIBLE_DEVICES": visible[index] if index < len(visible) else str(index)}
    order = os.environ.get("CUDA_DEVICE_ORDER")
    return found if order is None else found | {"CUDA_DEVICE_ORDER": order}


def _container(
    site: Site, image: str, argv: tuple[str, ...], where: Path, folder: Path, gpu: bool, device: str
) -> Launch:
    """The same command inside an image: paths stay what they are, only the job folder can be written, no network."""
    name = f"av-bench-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    silent = (home() / "silent").resolve()
    mounts = [f"{folder}:{folder}", f"{_DRIVERS}:{_DRIVERS}:ro", f"{silent}:{silent}:ro"]
    mounts += [f"{path}:{path}:ro" for path in (site.repo, site.weights) if path]
    run = [site.engine, "run", "--rm", "--name", name, "--network", "none", "--workdir", str(where)]
    run += [part for mount in mounts for part in ("--volume", mount)]
    variables = {"AV_BENCH_REQUEST": str(folder / "request.json"), "PYTHONPATH": str(folder / "lib")}
    variables |= one_device(device)
    run += [part for key, value in variables.items() for part in ("--env", f"{key}={value}")]
    run += ["--gpus", "all"] if gpu else []
    return Launch((*run, image, *argv), None, {}, (site.engine, "rm", "--force", name))
