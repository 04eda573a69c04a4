"""One theorem (or family of them) a file, predicted and measured side by side.

Each module has a tuple `CHECKS` of `rlkit.theory.checks.Check`; `python -m theory_checks` finds the
modules by itself, those whose name starts with an underscore excepted.
"""
