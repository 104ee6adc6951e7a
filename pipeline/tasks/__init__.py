"""The Luigi tasks: thin, one step of one month each; all work is a call to a plain function."""
