"""Features of media: sides of a run, extraction, the store, reference packs."""
