"""What a run leaves behind, and comparing runs."""
