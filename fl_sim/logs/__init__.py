"""The round log: its folder, its columns, its writer, its reader."""
