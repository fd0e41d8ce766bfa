"""Scripts that run inside foreign environments; nothing here is imported by this package."""
