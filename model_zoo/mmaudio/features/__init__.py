"""Features of a training corpus: crops, encoding, shards, reading."""
