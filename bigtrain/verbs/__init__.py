"""Floor 7: one file a verb of `bigtrain VERB`; the first line of its docstring is its help.

A verb defines `add_arguments(parser)` and `run(arguments) -> int` (the exit status). `bigtrain.cli` finds the files and
imports only the one that was asked for.
"""
