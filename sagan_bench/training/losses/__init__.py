"""Adversarial losses on logits (B,), fp32: one class a file, each loss a scalar.

Read without torch, because a configuration is checked by its loss.
"""
