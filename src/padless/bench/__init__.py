"""padless against what a user could pick instead: checked equal first, then timed side by side.

`lengths` and `cases` say what is timed, `served` builds the inference engines' side of it, `timing` checks and
times, `facts` tells on what machine, `table` and `plot` show, `command` is `padless bench`.
"""
