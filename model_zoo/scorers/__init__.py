"""How the embedded networks are trained: data rendered from ``impacts`` train, one small recipe for each network."""
