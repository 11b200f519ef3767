"""What a program says on the screen and hears from the keyboard."""
