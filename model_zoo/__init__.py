"""Everything that makes sound. ``load`` turns a name such as ``oracle:shift=0.4`` into a Generator."""

from model_zoo.load import load

__all__ = ["load"]
