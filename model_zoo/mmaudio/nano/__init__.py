"""``mmaudio-nano``: a small MMAudio with its own features, VAE and vocoder, trained on ``impacts`` train on a CPU."""
