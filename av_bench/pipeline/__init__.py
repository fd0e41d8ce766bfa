"""One run from its options to its record: plan, generate, extract, score."""
