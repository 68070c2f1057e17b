"""From files to arrays: how a data set is found, decoded and cached."""
