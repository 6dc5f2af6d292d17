"""The ``lockstep`` command: one file per group of subcommands; heavy parts are imported when one needs them."""
