"""Checkpoints as a rank has to do with them: its pieces of the state, written while training goes on, and read back."""
