"""What a user brings as samples: checks, classes and clients under any names."""
