"""Studies, one a file; `python -m experiments` lists them."""
