"""Floor 3: games. A game names networks, says which turns make a step, and gives the loss of a turn; pure maths."""
