"""Reports about fastconv itself: `explain` and `show_config`."""
