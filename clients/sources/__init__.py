"""From files to arrays: where a data set lies, how it is decoded and cached."""
