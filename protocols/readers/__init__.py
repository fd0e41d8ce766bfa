"""Readers of sets: a folder, published lists, rendered clips."""
