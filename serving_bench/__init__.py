"""Which engine, at which quantization, should serve your language model on your device."""
