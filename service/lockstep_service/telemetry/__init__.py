"""What an operator sees of the service: Prometheus metrics, and a log whose lines say of which request and job."""
