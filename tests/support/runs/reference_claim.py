"""The text of a claim file about one value of the reference engine."""

CLAIM = """\
sentence: It writes a token a second.
source: {who: nobody, where: nowhere, date: "2026-01-01"}
conditions: {}
original: {engine: reference}
here: {engine: reference}
predicates:
  - metric: output_tokens_per_s
    value: {engine: reference, load.concurrency: 1}
    at_least: 1
"""
