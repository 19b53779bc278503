"""The atlas of errors: where a model errs on labelled images, and which labels are likely wrong."""
