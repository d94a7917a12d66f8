"""The chat APIs, by the name that an engine gives them (contracts.ApiName)."""

from collections.abc import Mapping

from serving_bench.harness.contracts import ApiName
from serving_bench.harness.load.answer import anthropic, gemini, openai
from serving_bench.harness.load.answer.api import Api

APIS: Mapping[ApiName, Api] = {"anthropic": anthropic.API, "gemini": gemini.API, "openai": openai.API}
