"""batchllm: send every row of a file through a language model."""

__version__ = "0.1.0"
