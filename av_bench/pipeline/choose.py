"""The protocol of a run that names none: the first of the set's preferences whose networks are here."""

from __future__ import annotations

import protocols
from av_bench.pipeline.needed import lacking_for

PAPER = "vggsound-8s"


def choose_protocol(definition: protocols.SetDefinition, wanted: str | None) -> tuple[protocols.Protocol, str]:
    """The protocol, and what the first line of the table says about the choice; nothing when it was not a choice."""
    if wanted is not None or not definition.prefer:
        return protocols.load_protocol(wanted or definition.protocol), ""
    for name in definition.prefer:
        protocol = protocols.load_protocol(name)
        if not lacking_for(protocol):
            return protocol, remark(protocol.name)
    return protocols.load_protocol(definition.protocol), remark(definition.protocol)


def remark(name: str) -> str:
    """What was chosen, what it is worth, and the one command that gets the paper's networks."""
    if name == PAPER:
        return "chosen because the paper's networks are here"
    command = paper_command()
    if name == "nano":
        return (
            "chosen because no other networks are here; nano knows rendered impacts only, so its values say nothing "
            f"about real sounds. Real sounds: `av-bench weights pull sfx`; the paper's networks: `{command}`"
        )
    return f"chosen because its networks are here and the paper's are not; the paper's: `{command}`"


def paper_command() -> str:
    """One command that gets everything the paper's protocol needs and this installation lacks."""
    lacking = lacking_for(protocols.load_protocol(PAPER))
    steps = list(dict.fromkeys(item.command for item in lacking if item.kind == "package"))
    if any(item.kind == "weights" for item in lacking):
        steps.append(f"av-bench weights pull --for {PAPER} --accept-licence")
    return " && ".join(steps)
