"""Errors as data: an error is the same after it crossed processes as plain values."""

from __future__ import annotations

import json
import pickle

import pytest

from pipeline import errors
from pipeline.errors import PipelineError, StoreError, UnexpectedError, error_from_json

KINDS = [*PipelineError.__subclasses__(), *StoreError.__subclasses__()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_is_the_same_after_json_and_pickle(kind: type[PipelineError]) -> None:
    error = kind("green 2024-01: Fehlér x: y\n  second line", remedy="pipeline redo green 2024-01 --from load")
    for again in (error_from_json(json.dumps(error.to_dict())), pickle.loads(pickle.dumps(error))):
        assert (type(again), again.to_dict(), str(again)) == (kind, error.to_dict(), str(error))


def test_every_error_class_has_its_own_code() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)
    assert {kind.__name__ for kind in KINDS if kind.retryable} == {
        "NotPublished",
        "SourceError",
        "ConcurrentWriteError",
    }


def test_another_exception_keeps_the_name_of_its_class() -> None:
    error = error_from_json(json.dumps(errors.as_pipeline_error(KeyError("x"), "see the log").to_dict()))
    assert (type(error), error.kind, error.code, error.remedy) == (
        UnexpectedError,
        "KeyError",
        "unexpected",
        "see the log",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Task died unexpectedly with exit code -9", "Task died unexpectedly with exit code -9"),
        ("Traceback (most recent call last):\n  x\nValueError: no", "ValueError: no"),
        ('{"code": "of a later version", "message": "m"}', "m"),
        ("[1]", "[1]"),
        ("", "no reason was given"),
    ],
)
def test_any_other_text_is_the_message_of_an_unexpected_error(text: str, message: str) -> None:
    error = error_from_json(text)
    assert (type(error), str(error)) == (UnexpectedError, message)
