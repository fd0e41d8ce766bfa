"""Sampling: from clips to audio."""
