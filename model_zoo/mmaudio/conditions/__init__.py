"""Conditions of MMAudio: CLIP, Synchformer and text features."""
