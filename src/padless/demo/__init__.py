"""`padless demo`: trains on the functions of Python's own library without padding."""
