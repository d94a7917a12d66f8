"""Any running server that speaks the OpenAI protocol."""
