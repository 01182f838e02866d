"""Benchmarks of padless against alternatives: results are first checked for equality, then timed in turns.

`lengths` and `cases` define what is timed, `served` builds the inference engines, `timing` checks and times,
`facts` describes the machine, `table` and `plot` present the results, `command` is `padless bench`.
"""
