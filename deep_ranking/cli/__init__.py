"""The commands: each module parses its arguments, calls public functions and prints.

The module of a command has `DESCRIPTION`, `add_arguments(parser)` and `run(parser, argv)`. Slow
imports are inside `run`, so --help answers at once.
"""
