"""Causal language models and what is asked of them: loading, tokens, data, sampling. torch is imported when needed."""
