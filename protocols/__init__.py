"""What is measured: versioned sets (``sets/*.yaml``) and protocols (``*.yaml``), and the loader that reads them."""

from protocols.definitions import Protocol, SetDefinition, load_protocol, load_set, protocol_names, set_names

__all__ = ["Protocol", "SetDefinition", "load_protocol", "load_set", "protocol_names", "set_names"]
