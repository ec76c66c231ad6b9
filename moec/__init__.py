"""moec: a declarative graph compiler for mixture-of-experts models on many GPUs."""

__version__ = "0.1.0"
