"""Building Horovod's wheel for one environment: the standard library alone, since a checkout's set-up runs it too."""
