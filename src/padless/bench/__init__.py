"""Benchmarks of padless against alternatives: results are first checked for equality, then timed in turns.

`lengths` and `cases` define what is timed, `served` builds the inference engines, `timing` checks and times,
`facts` describes the machine, `table` and `plot` present the results, `command` is `padless bench`. `steps` times calls
of one or a few steps (`padless bench --steps`), `policies` the batches of a report (`padless report --measure`).
"""
