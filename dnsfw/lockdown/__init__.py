"""What a guarded host takes from its users meanwhile, since who becomes root, or has a container engine do its will, is
out of the guard's reach.

Law: every measure is written down before it is taken, can be taken back by whoever reads that, twice if need be, and is
gone after a reboot by itself: nothing here changes a file that outlives one.
"""
