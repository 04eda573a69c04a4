"""Figure styles and the few plots that several experiments share; NumPy and matplotlib only."""
