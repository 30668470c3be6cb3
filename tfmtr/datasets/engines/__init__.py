"""Query engines that run the Ibis expressions of `prepare`: one engine, one file."""
