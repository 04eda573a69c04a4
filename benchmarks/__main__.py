"""Lists the benchmarks: `python -m benchmarks`."""

import importlib
import pkgutil

import benchmarks

for module in pkgutil.iter_modules(benchmarks.__path__):
    if not module.name.startswith("_"):
        name = f"benchmarks.{module.name}"
        print(f"python -m {name}")
        print(f"    {importlib.import_module(name).__doc__.splitlines()[0]}")
