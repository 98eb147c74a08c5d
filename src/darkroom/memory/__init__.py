"""What a checkpoint takes in memory, and where its parts go on the device there is. No torch."""
