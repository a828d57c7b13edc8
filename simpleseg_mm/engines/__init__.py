"""Engines of others that write a live model's answers: vLLM in this process, or as servers."""
