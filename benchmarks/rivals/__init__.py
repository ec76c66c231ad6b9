"""The training step of the described model, written without moec to be compared with it."""
