"""The main job on real data: trains on the functions of Python's own library without padding."""
