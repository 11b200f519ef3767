"""What classical methods make of a support set of regression, to stand beside the learners."""
