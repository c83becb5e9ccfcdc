"""Client pools: where simulated clients run, behind Flower's own ``Grid`` interface."""
