"""The Qwen3 network: knows weights and arithmetic, from token ids to hidden states; must not know texts or backends."""
