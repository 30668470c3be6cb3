"""What a service does every day with a trained model: prepare, judge, publish, go back, forget."""
