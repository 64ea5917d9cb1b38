"""The studies: a laboratory that really trains, merges and judges RL and supervised experts, and the scale study.

This package imports rlmerge; rlmerge never imports it. Its verbs are found by entry points, see ``commands``.
"""
