"""What is told, not computed: `explain` and `show_config`."""
