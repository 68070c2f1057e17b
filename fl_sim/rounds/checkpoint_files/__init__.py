"""What a checkpoint's file holds, and how it is written and read: nothing that it names is run."""
