"""Hostile input and rough endings, tried and counted: `make torture`.

`images` and `models` make hostile files, which the default tests use too; each other module is a
part with a function `run(tally, folder, seed)`.
"""
