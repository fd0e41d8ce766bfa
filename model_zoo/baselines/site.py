"""Where the parts of a baseline are on this machine, and what is still missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from av_bench.contracts import UsageError
from av_bench.runtime.files import home, write_json
from av_bench.schema import build, read_json
from model_zoo.baselines.schema import Manifest
from model_zoo.baselines.steps import open_places, read_steps, uses


@dataclass(frozen=True)
class Site:
    """Where things are on this machine; recorded by ``av-bench baselines setup``."""

    python: str | None = None
    python2: str | None = None  # of a second environment
    repo: str | None = None
    weights: str | None = None
    steps: str | None = None  # the user's own steps file
    image: str | None = None
    engine: str = "docker"

    def in_container(self, manifest: Manifest) -> bool:
        """A recorded image wins over an interpreter; with neither, the manifest's modes decide."""
        if "container" not in manifest.modes:
            return False
        return self.image is not None or (self.python is None and "subprocess" not in manifest.modes)

    def missing(self, needs: Sequence[str], contained: bool = False) -> list[str]:
        """What is needed and not recorded, or not there any more. Interpreters of a container are not looked for."""
        found = []
        for need in needs:
            value = vars(self)[need]
            if value is None:
                found.append(f"{need} is not set")
            elif need != "image" and not (contained and need == "python2") and not Path(value).exists():
                found.append(f"{need} {value} does not exist")
        return found


def missing(manifest: Manifest, site: Site) -> list[str]:
    """What a manifest needs of a site and does not find: what it lists, and what its steps name."""
    steps = manifest.driver.steps
    used = [n for n in ("python2", "repo", "weights") if steps is not None and uses(steps, n)]
    needs = list(dict.fromkeys((*manifest.driver.needs, *used)))
    contained = site.in_container(manifest)
    if contained:
        needs = [need for need in needs if need != "python"]
        needs = needs if manifest.driver.image else ["image", *needs]
    return site.missing(needs, contained)


def site_file(name: str) -> Path:
    """Where the paths of a baseline on this machine are kept."""
    return home() / "baselines" / f"{name}.json"


def read_site(name: str) -> Site:
    """Recorded paths; ``AV_BENCH_<NAME>_PYTHON`` (and so on, one for each field of Site) come first."""
    path = site_file(name)
    try:
        known = read_json(path, dict) if path.is_file() else {}
    except UsageError as error:
        raise UsageError(f"{error}; remove it and run `av-bench baselines setup`") from error
    prefix = "AV_BENCH_" + "".join(c if c.isalnum() else "_" for c in name.upper())
    for item in fields(Site):
        value = os.environ.get(f"{prefix}_{item.name.upper()}")
        if value:
            known[item.name] = value
    return build(Site, known, str(path))


def write_site(name: str, site: Site) -> Path:
    """Record the paths of a baseline."""
    path = site_file(name)
    write_json(path, vars(site))
    return path


def with_steps(manifest: Manifest, site: Site) -> Manifest:
    """The manifest with the user's own steps in place of its own, where a file of them is recorded."""
    if site.steps is None:
        return manifest
    if manifest.driver.steps is None:
        raise UsageError(f"baseline {manifest.name} is not run by steps; the steps file {site.steps} has no use")
    steps, digest = read_steps(Path(site.steps), manifest.conditions.extras)
    extras = (*manifest.conditions.extras, *(e for e in steps.extras if e not in manifest.conditions.extras))
    return replace(
        manifest,
        driver=replace(manifest.driver, steps=steps),
        conditions=replace(manifest.conditions, extras=extras),
        steps_digest=digest,
    )


def unfilled(manifest: Manifest, site: Site) -> list[str]:
    """Names the open places of the steps, with the two commands that lead on."""
    places = open_places(manifest.driver.steps) if manifest.driver.steps is not None else []
    if not places:
        return []
    name = manifest.name
    listed = f"{len(places)} places of {site.steps or 'its steps'} are open ({'; '.join(places)})"
    record = f"`av-bench baselines setup {name} --steps {name}-steps.yaml`"
    begin = f"`av-bench baselines setup {name} --print > {name}-steps.yaml`"
    return [f"{listed}: {begin}, fill them in from the official code, then {record}"]
