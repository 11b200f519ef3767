"""What evaluates and draws the policies of reinforcement learning."""
