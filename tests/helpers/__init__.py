"""What tests of several files share: oracles, small logs, and scripts that run in processes of their own."""
