"""Where work is done: in this process, in child processes with a device each, or by Ray actors."""
