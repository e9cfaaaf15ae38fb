"""What is told about requests besides their answers: log lines, metrics and traces."""
