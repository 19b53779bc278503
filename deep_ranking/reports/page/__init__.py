"""One HTML file about a model: how good it is, what it confuses, and possible label errors."""
