"""The unsharded answer that `moec verify` compares with: plain torch, written apart, importing nothing of moec's."""
