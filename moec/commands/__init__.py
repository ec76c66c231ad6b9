"""The commands of `moec`, a function each: what it is asked for to its exit status."""
