"""The machine: devices, files and locks, threads, progress."""
