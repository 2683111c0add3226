"""What may stand at a side of a feature map: kinds of attention, and controls in its place.

A kind is a small class (`_base.Attention`) in a file of its own, read without torch: records are
checked, compared and reported by its facts.  Its ``block`` imports what it puts into a network; the
shipped ones share `_blocks`, whose maps `_paths` computes.  A kind of your own is one file with
both: the class, and the module that its ``block`` returns.
"""
