"""An embedded laboratory: trains real RL and supervised experts of one base, and studies how they merge."""
