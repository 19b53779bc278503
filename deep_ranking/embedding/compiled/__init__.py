"""Compiled models: a model file once converted for an engine that needs no TensorFlow."""
