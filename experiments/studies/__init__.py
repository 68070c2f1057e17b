"""Studies: several runs that answer one question, and the page of results that they make."""
