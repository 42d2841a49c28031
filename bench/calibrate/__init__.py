"""From records to efficiencies, predictions and the analytic chain."""
