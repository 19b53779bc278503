"""What a person reads and looks at: the doctor, the page, explanations, plots."""
