"""The round log: its columns, its writer, its reader."""
