"""Media files: decoding, resampling, muxing."""
