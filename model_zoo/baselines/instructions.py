"""What a user has to do to get a baseline, in words and shell lines; and the steps file to begin with."""

from __future__ import annotations

from model_zoo.baselines.schema import Manifest
from model_zoo.baselines.steps import PLACEHOLDERS, as_yaml, open_places, uses


def printed(manifest: Manifest) -> str:
    """The recipe; of a baseline that is run by steps the whole text is a steps file, the recipe being its comments."""
    if manifest.driver.steps is None:
        return recipe(manifest)
    comments = "\n".join(line if line.startswith("#") else f"# $ {line}" for line in recipe(manifest).splitlines())
    return f"{comments}\n{_help(manifest)}\n{as_yaml(manifest.driver.steps)}".rstrip()


def _help(manifest: Manifest) -> str:
    assert manifest.driver.steps is not None
    names = ", ".join((*PLACEHOLDERS, "video_fps (with reencode)", *manifest.conditions.extras))
    lines = [
        "#",
        f"# Steps of {manifest.name}: inputs that are written, commands that are run, the file that is collected.",
        f"# Filled in for every clip: {names}. Braces that are meant are written twice.",
    ]
    places = open_places(manifest.driver.steps)
    if places:
        lines.append(f"# Not known here: the {len(places)} places in <...>. Fill them in from the official code.")
    return "\n".join([*lines, f"# $ av-bench baselines setup {manifest.name} --steps THIS_FILE"])


def recipe(manifest: Manifest) -> str:
    """Shell lines and what has to be fetched by hand, with licences, hashes and what is not certain."""
    lines = [f"# {manifest.title}: {manifest.citation}", f"# code: {manifest.licence.code}"]
    for what, terms in (("weights", manifest.licence.weights), ("samples", manifest.licence.samples)):
        lines += [f"# {what}: {terms}"] if terms else []
    lines += [f"# territory: {manifest.licence.territory}"] if manifest.licence.territory else []
    if manifest.repository:
        lines.append(f"git clone {manifest.repository} {manifest.name}")
        lines += [f"git -C {manifest.name} checkout {manifest.revision}"] if manifest.revision else []
    environment = manifest.environment
    if environment is not None:
        lines.append(f"# Python {environment.python or '(version not declared)'}; {environment.note}".rstrip("; "))
        lines += list(environment.recipe)
        if environment.pins:
            lines.append("# pins: " + ", ".join(environment.pins))
    for weight in manifest.weights:
        size = f", {weight.size} bytes" if weight.size else ""
        digest = f"sha256 {weight.sha256}" if weight.sha256 else "sha256 not known"
        lines.append(f"# weights: {weight.what}: {weight.url or 'see the repository'} ({digest}{size})")
    if manifest.samples is not None:
        lines += [f"# samples: {manifest.samples.source}", f"#   names: {manifest.samples.pattern}"]
        lines.append(f"av-bench run --model {manifest.name} --samples DIR --set SET")
    lines += [f"# driver: {manifest.driver.status}. {manifest.driver.note}".rstrip(". ")]
    if manifest.driver.command:
        steps = manifest.driver.steps
        used = [n for n in ("python2", "repo", "weights") if steps is not None and uses(steps, n)]
        options = " ".join(f"--{need} PATH" for need in dict.fromkeys((*manifest.driver.needs, *used)))
        lines.append(f"av-bench baselines setup {manifest.name} {options}")
    elif manifest.driver.target:
        lines.append(f"av-bench baselines setup {manifest.name} --weights DIR")
    return "\n".join([*lines, *(f"# [unverified] {key}: {why}" for key, why in manifest.unverified.items())])
