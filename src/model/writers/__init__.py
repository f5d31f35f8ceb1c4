from src.model.writers.causal_lm import CausalLMWriter

__all__ = ["CausalLMWriter"]
