"""The commands: each module parses its arguments, wires the rooms together and prints.

A command's module has `DESCRIPTION`, `add_arguments(parser)` and `run(parser, argv)`. What takes
long to import is imported inside `run`, so that --help answers at once.
"""
