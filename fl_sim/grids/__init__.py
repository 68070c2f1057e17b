"""What stands behind Flower's ``Grid``: virtual clients, or real devices."""
