"""From audio to latents and back: mel, VAE, vocoder."""
