"""Speed, memory and precision of the network on this machine, each beside what the machine could do at most."""
