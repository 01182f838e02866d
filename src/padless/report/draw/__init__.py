"""Pictures of a batch as text, SVG and an interactive page; needs no torch, and only `command` prints."""
