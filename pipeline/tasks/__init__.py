"""The Luigi tasks: thin, one step of one month each; all work is a call to a plain function."""

from pipeline.tasks import luigi_options  # noqa: F401 - before Luigi: it reports an invalid luigi.cfg in one line.
