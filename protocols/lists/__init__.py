"""The public list files of the field: which they are, where they are found, how they are read."""
