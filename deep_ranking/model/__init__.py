"""The network, its file, its first weights and arithmetic, and the meaning of its distances."""
