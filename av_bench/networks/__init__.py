"""Networks that several extractors and models share, built from torch."""
