"""Training commands, the evaluator that training calls, and held-out quality."""
