"""From sources to batches: examples, chat format, tokens, splits, and the plan of each stage."""
