"""Word n-gram language models: estimated, read, written, pruned, and scored by an automaton."""
