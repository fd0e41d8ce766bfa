"""Generators that run outside this interpreter: the file contract, its runner and its checks."""
