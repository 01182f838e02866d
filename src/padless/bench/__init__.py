"""padless against what a user could pick instead: checked equal first, then timed side by side."""
