"""Reports for people: the doctor, HTML pages, explanations, comparisons and plots."""
