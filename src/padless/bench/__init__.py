"""Benchmarks of padless against its alternatives: results are checked equal first, then both are timed in turns.

`lengths` and `cases` say what is timed, `served` builds the inference engines' side of it, `timing` checks and
times, `facts` describes the machine, `table` and `plot` show, `command` is `padless bench`.
"""
