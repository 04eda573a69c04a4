"""Speed beside other libraries: the same computation, checked to give the same numbers.

Each benchmark is a file; `python -m benchmarks` lists them. The other libraries come with
`pip install "rlkit[bench]"`.
"""
