"""The form of checkpoints on disk, without torch: the state of a run by logical names and global slices.

A step has a folder of its own: files of slices in the form of safetensors, each slice written once, by the rank that
owns it, and a manifest in JSON that says where every slice is, with check sums. Its rename is the moment from which the
folder counts. `moec.runtime.checkpoint` has what a rank does with it.
"""
